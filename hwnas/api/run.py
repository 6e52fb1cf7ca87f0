"""`hwnas run`: the whole pipeline, from a configuration to a verified winner."""

from __future__ import annotations

from pathlib import Path

from hwnas.api.open_run import Run
from hwnas.api.result import Folder, ProgressFor, Settings, no_progress
from hwnas.core.command import command_line
from hwnas.pipeline.engine import execute
from hwnas.pipeline.graph import stages_of
from hwnas.pipeline.opening import open_project
from hwnas.pipeline.project import Project

__all__ = ["held", "reported", "run", "run_folder"]


def run(
    config: str,
    *,
    folder: Folder | None = None,
    settings: Settings = None,
    report_only: bool = False,
    progress: ProgressFor = no_progress,
) -> Run:
    """Profiles, trains, labels, predicts, searches, fine-tunes, exports, verifies and reports.

    Args:
        config: a shipped name (`hwnas.list("configs")`) or a path.
        folder: the run folder; default: `runs/CONFIG`. Existing results in it are kept.
        settings: changes of the configuration.
        report_only: return even if a check failed; see `Run.checks`.
        progress: shows the progress.

    Raises:
        UserError: the configuration is invalid, or a stage cannot run.
        CheckFailed: a check of the run failed.
        NotJudged: the speed of the machine differs too much from that of the table to judge.
    """
    with open_project(
        run_folder(config, folder),
        config=config,
        changes=settings,
        progress_for=progress,
        command=command_line("run", config),
    ) as project:
        execute(stages_of(project), project.run, outlook=project.outlook, then_reports=True)
        return held(reported(project), report_only)


def run_folder(config: str, folder: Folder | None) -> Path:
    """Returns `folder`, or by default `runs/CONFIG`."""
    return Path(folder) if folder is not None else Path("runs") / Path(config).stem


def reported(project: Project) -> Run:
    """The run, after writing a report of its current results."""
    from hwnas.studies.run_report import write_run_report

    write_run_report(project)
    return Run(project)


def held(found: Run, report_only: bool) -> Run:
    """Returns the run if all its checks passed, else raises an error."""
    if not report_only:
        found.raise_for_checks()
    return found
