"""`hwnas report`: what a run folder holds so far, in one HTML file."""

from __future__ import annotations

from pathlib import Path

from hwnas.api.open_run import open_run
from hwnas.api.result import Folder

__all__ = ["report"]


def report(folder: Folder, *, search: str | None = None) -> Path:
    """Write the HTML report of what the run folder holds so far; its path.

    search: which one [the last one].
    """
    from hwnas.studies.run_report import write_run_report

    return write_run_report(open_run(folder, search=search).project)
