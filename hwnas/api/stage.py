"""Shared code of the verbs that run one stage of a run folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from hwnas.api.options import refuse_both
from hwnas.api.result import Folder, ProgressFor, Settings
from hwnas.core.errors import UserError
from hwnas.core.rundir import RunDir
from hwnas.pipeline.engine import execute
from hwnas.pipeline.graph import stages_of
from hwnas.pipeline.opening import open_project
from hwnas.pipeline.plan import Stage
from hwnas.pipeline.project import Project
from hwnas.pipeline.stored import require_search, stored_config

__all__ = ["bring_up_to_date", "of_known_search", "of_search", "stage_names"]

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
    then_reports: bool = False,
) -> Found:
    """Brings the stages for `prefix` (`stage_names`) up to date; returns `found(project)`.

    `before(project)` is called first. `anew`, `then_reports`: see `execute`.

    Raises:
        UserError: no configuration, the folder is in use, or needed stages are not done.
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
        again = {} if anew is None else anew(project)
        names = stage_names(stages, prefix)
        execute(
            stages,
            project.run,
            only=names,
            anew=again,
            outlook=project.outlook,
            then_reports=then_reports,
        )
        return found(project)


def stage_names(stages: Sequence[Stage], prefix: str) -> list[str]:
    """The stage named `prefix`, or else the stages named `prefix/...`.

    Raises:
        UserError: there are no such stages.
    """
    names = [stage.name for stage in stages]
    found = [n for n in names if n == prefix] or [n for n in names if n.startswith(f"{prefix}/")]
    if not found:
        raise UserError(
            f"this run has no stage {prefix!r}",
            expected=f"one of {', '.join(names)}",
            fix="`devices` determines the stages profile/DEVICE of a run; it has label/trained if"
            " label.trained.n is set",
        )
    return found


def of_search(name: str | None, settings: Settings) -> dict[str, Any]:
    """Settings that select a search of the run by name; None: the last search.

    Raises:
        UserError: the settings contradict the name.
    """
    refuse_both("the name of a search", name, "search.name", settings)
    return ({} if name is None else {"search.name": name}) | dict(settings or {})


def of_known_search(folder: Folder, name: str | None, settings: Settings) -> dict[str, Any]:
    """`of_search` for a stage that needs an existing search.

    Raises:
        UserError: names the searches of the run folder; or as in `of_search`.
    """
    changes, run = of_search(name, settings), RunDir(Path(folder))
    if name is not None and stored_config(run).exists():
        require_search(run, name)
    return changes
