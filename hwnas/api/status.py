"""`hwnas status`: which stages of a run folder are done, and which would run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hwnas.api.result import Folder, Listing, Settings, no_progress
from hwnas.api.stage import stage_names
from hwnas.pipeline.artifacts import Artifacts
from hwnas.pipeline.checks import folder_is_writable, out_of_reach
from hwnas.pipeline.data_checks import doubts, doubts_known, unchecked
from hwnas.pipeline.disk import disk_use
from hwnas.pipeline.engine import check_stages
from hwnas.pipeline.graph import stages_of, stages_of_all_searches
from hwnas.pipeline.opening import open_project
from hwnas.pipeline.plan import Plan, data_changes, plan_stages
from hwnas.pipeline.project import Project

__all__ = ["plan", "status"]


def status(folder: Folder, *, settings: Settings = None) -> Listing:
    """Status of the stages of a run folder, for all its searches, and their winners.

    The rows are stages, with the cost of their remaining work. The fact `searches` has a row for
    each search: its state, and score and costs of the winner. The fact `notes` describes data and
    devices that changed since stages used them, or are missing. The fact `disk` has the size of the
    folder in bytes, and of its removable files: `superseded_bytes`, `timed_models_bytes`.
    """
    with open_project(
        Path(folder),
        changes=settings,
        progress_for=no_progress,
        command="hwnas status",
        read_only=True,
    ) as project:
        plans = plan_stages(stages_of_all_searches(project), project.run)
        searches = [_search(project, plan) for plan in plans if plan.kind == "search"]
        winners = {f"search/{row['search']}": row["winner"] for row in searches}
        rows = [row | {"winner": winners.get(row["stage"])} for row in _rows(project, plans)]
        known = doubts_known(project)
        facts = {"searches": searches, "disk": disk_use(project.run)}
        return _listing(project, plans, rows, facts, known)


def plan(
    folder: Folder,
    *,
    config: str | None = None,
    settings: Settings = None,
    only: str | None = None,
) -> Listing:
    """The stages that would run with this configuration, why, and their cost: `--dry-run`.

    It makes all checks that are possible before the first stage runs: settings, files, devices,
    limits, and number of images. It writes only the cache of decoded images. The fact `checked` has
    the names of the checked stages, and `unchecked` the checks that are left to the run.

    only: a stage (`train`), or the first part of stage names (`search`), to run and therefore
        check; default: all stages.

    Raises:
        UserError: any error for which the command itself would be refused.
    """
    with open_project(
        Path(folder),
        config=config,
        changes=settings,
        progress_for=no_progress,
        command="hwnas status",
        read_only=True,
    ) as opened:
        project = replace(opened, is_plan=True)
        folder_is_writable(project.run.root)
        stages = stages_of(project)
        plans = plan_stages(stages, project.run)
        wanted = [stage.name for stage in stages] if only is None else stage_names(stages, only)
        checked = check_stages(plans, wanted, project.run, is_plan=True)
        left = (*unchecked(project), *out_of_reach(project)) if checked else ()
        facts = {"checked": checked, "unchecked": [*left]}
        known = doubts(project) if checked else doubts_known(project)
        return _listing(project, plans, _rows(project, plans), facts, known)


def _listing(
    project: Project,
    plans: Sequence[Plan],
    rows: Sequence[dict[str, Any]],
    facts: dict[str, Any],
    known: Sequence[str],
) -> Listing:
    notes = [*project.outside.notes, *data_changes(plans), *known]
    if absent := project.source.absent:
        notes.append(f"{absent}; they are not compared")
    root = str(project.run.root)
    return Listing(rows, title=root, facts={"run": root, "notes": notes, **facts})


def _rows(project: Project, plans: Sequence[Plan]) -> list[dict[str, Any]]:
    ledger = project.run.ledger()
    return [
        {
            "stage": plan.stage.name,
            "status": plan.status,
            "cost": plan.cost,
            "seconds": ledger[plan.stage.name].seconds if plan.stage.name in ledger else None,
        }
        for plan in plans
    ]


def _search(project: Project, plan: Plan) -> dict[str, Any]:
    """State and winner of one search; without a winner if there is none yet."""
    name = plan.stage.name.partition("/")[2]
    row = {"search": name, "status": plan.status, "is_last": name == project.config.search.name}
    result = Artifacts(project.run, name).main_search.result.read_if_there()
    if result is None:
        return row | {"winner": None, "score": None, "costs": None}
    winner = result.winner
    return row | {"winner": winner.arch.key, "score": winner.score, "costs": winner.costs}
