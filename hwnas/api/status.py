"""`hwnas status`: which stages of a run folder are done, and which would run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hwnas.api.result import Folder, Listing, Settings, no_progress
from hwnas.api.stage import stage_names
from hwnas.core.env import use_threads
from hwnas.core.memory import keep_freed_memory
from hwnas.core.progress import duration
from hwnas.pipeline.artifacts import Artifacts
from hwnas.pipeline.checks import folder_is_writable, out_of_reach
from hwnas.pipeline.costs import latency_spreads
from hwnas.pipeline.data_checks import doubts, doubts_known, unchecked
from hwnas.pipeline.disk import disk_use
from hwnas.pipeline.engine import check_stages
from hwnas.pipeline.graph import stages_of, stages_of_all_searches
from hwnas.pipeline.opening import open_project
from hwnas.pipeline.plan import Plan, data_changes, plan_stages, time_left
from hwnas.pipeline.project import Project

__all__ = ["plan", "status"]


def status(folder: Folder, *, settings: Settings = None) -> Listing:
    """Status of the stages of a run folder, for all its searches, and their winners.

    The rows are stages, with the cost of their remaining work and the seconds that they took. `why`
    is the reason for the status of a stage that has run before; for a finished `verify`, it names
    the checks that failed. The fact `searches` has a row for each search: its state, and score,
    validation top-1 and costs of the winner. The fact `notes` describes data and devices that
    changed since stages used them, or are missing. The fact `disk` has the size of the folder in
    bytes, and of its removable files: `superseded_bytes`, `timed_models_bytes`.
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


def _checks(project: Project, plan: Plan) -> str:
    """The result of the checks of a finished `verify`, if one of them failed."""
    if plan.kind != "verify" or plan.status != "done":
        return ""
    name = plan.stage.name.partition("/")[2]
    results = Artifacts(project.run, name).results.read_if_there()
    failed = results.of(passed=False) if results is not None else ()
    named = ", ".join(check.name for check in failed)
    return f"{len(failed)} check{'s' * (len(failed) > 1)} failed: {named}" if failed else ""


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
    the names of the checked stages, and `unchecked` the checks that are left to the run. `left_s`
    of a row is the estimated time of a stage in seconds (None: unknown), and `now` says whether
    this command would run it; the fact `left_s` is the sum over the stages that it would run. If a
    search would run, the fact `latencies` has range and quartiles of the latencies that the space
    reaches, by device.

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
        open_points = (*unchecked(project), *out_of_reach(project)) if checked else ()
        known = doubts(project) if checked else doubts_known(project)
        use_threads(project.config.threads)
        keep_freed_memory()  # speeds are measured as they will be
        ledger = project.run.ledger()
        left = {p.stage.name: time_left(p, ledger) for p in plans}
        rows = [
            row | {"left_s": left[row["stage"]], "now": row["stage"] in wanted}
            for row in _rows(project, plans)
        ]
        told = [row["left_s"] for row in rows if row["now"] and row["left_s"] is not None]
        facts: dict[str, Any] = {"checked": checked, "unchecked": [*open_points]}
        facts["left_s"] = sum(told)
        if any(name.startswith("search/") for name in wanted):
            facts["latencies"] = latency_spreads(project)
        return _listing(project, plans, rows, facts, known)


def _listing(
    project: Project,
    plans: Sequence[Plan],
    rows: Sequence[dict[str, Any]],
    facts: dict[str, Any],
    known: Sequence[str],
) -> Listing:
    notes = [*project.outside.notes, *data_changes(plans), *known]
    if absent := project.source.absent:
        notes.append(f"{absent}; changes of the data are not detected")
    root = str(project.run.root)
    facts = {"run": root, "notes": notes, **facts}
    shown = [*map(_shown, rows)]
    if not any(row["why"] for row in shown):
        shown = [{key: value for key, value in row.items() if key != "why"} for row in shown]
    return Listing(rows, title=root, facts=facts, shown=shown)


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    """A row for a terminal, with one column for the time that a stage took or will take."""
    spent, left, is_done = row["seconds"], row.get("left_s"), row["status"] == "done"
    time = f"{duration(spent)}" if spent is not None and is_done else None
    if left:
        time = f"{'' if row['now'] else 'later, '}about {duration(left)}"
    found = {"stage": row["stage"], "status": row["status"], "time": time, "cost": row["cost"]}
    found["why"] = row["why"] or None
    return found | {k: row[k] for k in ("winner",) if k in row}


def _rows(project: Project, plans: Sequence[Plan]) -> list[dict[str, Any]]:
    ledger = project.run.ledger()
    return [
        {
            "stage": plan.stage.name,
            "status": plan.status,
            "cost": plan.cost,
            "seconds": ledger[plan.stage.name].seconds if plan.stage.name in ledger else None,
            "why": plan.why or _checks(project, plan),
        }
        for plan in plans
    ]


def _search(project: Project, plan: Plan) -> dict[str, Any]:
    """State and winner of one search; without a winner if there is none yet."""
    name = plan.stage.name.partition("/")[2]
    row = {"search": name, "status": plan.status, "is_last": name == project.config.search.name}
    result = Artifacts(project.run, name).main_search.result.read_if_there()
    if result is None:
        return row | {"winner": None, "score": None, "top1": None, "costs": None}
    winner, known = result.winner, result.winner.accuracy
    top1 = None if known is None else known.top1
    return row | {
        "winner": winner.arch.key,
        "score": winner.score,
        "top1": top1,
        "costs": winner.costs,
    }
