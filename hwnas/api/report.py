"""`hwnas report`: what a run folder holds so far, in one HTML file."""

from __future__ import annotations

from pathlib import Path

from hwnas.api.result import Folder, no_progress
from hwnas.pipeline.project import open_project

__all__ = ["report"]


def report(folder: Folder, *, search: str | None = None) -> Path:
    """Write the HTML report of what the run folder holds so far; its path.

    search: which one [the last one].
    """
    from hwnas.studies.run_report import write_run_report

    with open_project(
        Path(folder),
        changes={"search.name": search} if search else {},
        progress_for=no_progress,
        command="hwnas report",
        read_only=True,
    ) as project:
        return write_run_report(project)
