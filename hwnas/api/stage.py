"""What verbs that run one stage of a run folder have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from hwnas.api.result import Folder, ProgressFor, Settings
from hwnas.pipeline.engine import execute
from hwnas.pipeline.graph import stages_of
from hwnas.pipeline.project import Project, open_project

__all__ = ["bring_up_to_date", "of_search"]

Found = TypeVar("Found")


def bring_up_to_date(
    folder: Folder,
    prefix: str,
    *,
    config: str | None = None,
    changes: Settings = None,
    progress: ProgressFor,
    found: Callable[[Project], Found],
    before: Callable[[Project], None] | None = None,
    anew: Callable[[Project], Mapping[str, str]] | None = None,
    is_whole_name: bool = False,
) -> Found:
    """Bring the stages named `prefix` or `prefix/...` up to date; returns `found(project)`.

    `before(project)` is called first; `anew`: see `execute`. With `is_whole_name`, only the stage
    named `prefix` runs.

    Raises:
        UserError: no configuration, the folder is in use, or stages that are needed are not done.
    """
    with open_project(
        Path(folder),
        config=config,
        changes=changes,
        progress_for=progress,
        command=f"hwnas {prefix}",
    ) as project:
        if before is not None:
            before(project)
        stages = stages_of(project)
        names = [stage.name for stage in stages]
        only = [prefix] if is_whole_name else [n for n in names if f"{n}/".startswith(f"{prefix}/")]
        again = {} if anew is None else anew(project)
        execute(stages, project.run, only=only, anew=again)
        return found(project)


def of_search(name: str | None, settings: Settings) -> dict[str, Any]:
    """Settings of a command for one of the run's searches; None: for the last one."""
    return ({} if name is None else {"search.name": name}) | dict(settings or {})
