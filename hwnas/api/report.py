"""`hwnas report`: writes the results of a run folder to one HTML file."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from hwnas.api.open_run import open_run
from hwnas.api.result import Folder

__all__ = ["report"]

log = logging.getLogger(__name__)


def report(folder: Folder, *, search: str | None = None, out: Folder | None = None) -> Path:
    """Writes the HTML report of the results so far; returns its path.

    search: name of the search; default: the last one.
    out: the file; default: `report.html` in the run folder. If the run folder is not writable, it
        is a file in the working directory, named after the run.
    """
    from hwnas.studies.run_report import write_run_report

    project = open_run(folder, search=search).project
    path = project.files.report if out is None else Path(out)
    root = project.run.root.absolute()
    if out is None and not os.access(root, os.W_OK):
        path = Path.cwd() / f"{root.name}-{path.name}"
        log.warning("the run folder cannot be written; the report goes to %s", path)
    return write_run_report(project, path)
