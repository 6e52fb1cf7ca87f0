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
    """Write the HTML report of what the run folder holds so far; its path.

    search: which one [the last one]. out: the file [`report.html` in the run folder, or in the
    working directory, named after the run, where the run folder cannot be written].
    """
    from hwnas.studies.run_report import write_run_report

    project = open_run(folder, search=search).project
    path = project.files.report if out is None else Path(out)
    root = project.run.root.absolute()
    if out is None and not os.access(root, os.W_OK):
        path = Path.cwd() / f"{root.name}-{path.name}"
        log.warning("the run folder cannot be written; the report goes to %s", path)
    return write_run_report(project, path)
