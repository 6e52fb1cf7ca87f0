"""Runs stages: checks first, then sets stale files aside, moves earlier files back, and executes.

`core/versions.py` finds the files of the run folder that belong to given settings.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import replace

from hwnas.core.command import command_line
from hwnas.core.errors import HwnasError, UserError
from hwnas.core.history import store, take_back
from hwnas.core.progress import Outlook
from hwnas.core.rundir import RunDir, StageRecord
from hwnas.core.versions import Transition
from hwnas.pipeline.disk import require_space
from hwnas.pipeline.plan import UP_TO_DATE, Plan, Stage, data_changes, plan_stages, time_left
from hwnas.pipeline.run_stage import CHANGED, look_after, remember_data, run_stage

__all__ = ["check_stages", "execute"]

log = logging.getLogger(__name__)


def execute(
    stages: Sequence[Stage],
    run: RunDir,
    *,
    only: Iterable[str] | None = None,
    anew: Mapping[str, str] | None = None,
    outlook: Outlook | None = None,
    then_reports: bool = False,
) -> None:
    """Brings `only` (default: all stages) up to date, in order. The caller must hold the lock.

    First all checks run. Then the configuration is stored and the files of changed stages are
    moved, as one change. If a stage fails later, the change stays, unless it was provisional; the
    error names the command that undoes it.

    anew: maps stages that run again, even if they are done, to the reason. outlook: is told how
    long the stages are expected to take. then_reports: whether the caller writes the report
    afterwards.

    Raises:
        UserError: a stage outside `only` is needed but not up to date. Before any change: a stage
            cannot work, or a file that it reads is missing.
    """
    wanted = {stage.name for stage in stages} if only is None else set(only)
    plans = _plans(stages, run, anew or {})
    made = wanted | {plan.stage.name for plan in plans if plan.status == "returns"}
    for plan in plans:
        if plan.stage.name in wanted and plan.status not in UP_TO_DATE:
            _require_needs(plan, plans, run, made=made)
    todo = check_stages(plans, wanted, run)
    for line in _warnings(plan.stage for plan in plans if plan.stage.name in todo):
        log.warning("%s", line)
    outlook = _expect(Outlook() if outlook is None else outlook, plans, todo, run)
    change, provisional = _begin(plans, wanted, run, anew or {})
    try:
        plans = []
        for stage in stages:
            plans += plan_stages([stage], run, after=plans)
            if stage.name not in wanted:
                continue
            _require_needs(plans[-1], plans, run)
            if plans[-1].status == "done":
                log.info("%s: up to date", stage.name)
                look_after(plans[-1], run)
            else:
                run_stage(plans[-1], run, expected=outlook.said(stage.name))
                plans[-1:] = plan_stages([stage], run, after=plans[:-1])
            if stage.name == provisional:
                provisional = None
        _tell_next(stages, run, plans, then_reports=then_reports)
    except BaseException as error:
        if provisional is not None:
            with contextlib.suppress(UserError):  # the error of the stage is more important
                take_back(run, provisional, change)
        elif change and isinstance(error, HwnasError):
            error.add_way_out(
                f"{command_line('undo', run.root)}, which restores the previous settings and stages"
            )
        raise


def _plans(stages: Sequence[Stage], run: RunDir, anew: Container[str]) -> list[Plan]:
    """The plans of all stages; changes of the data are logged."""
    plans = [
        replace(plan, status="stale") if plan.stage.name in anew else plan
        for plan in plan_stages(stages, run)
    ]
    for line in data_changes(plans):
        log.warning("%s", line)
    return plans


def check_stages(
    plans: Iterable[Plan], wanted: Container[str], run: RunDir, *, is_plan: bool = False
) -> list[str]:
    """Names of the wanted stages that are not up to date, after checking all of them.

    is_plan: whether this is a dry run, which allows missing data (`check_data` does not).

    Raises:
        UserError: a stage cannot work, the disk is too full, or a file or the data that it reads
            are missing.
    """
    todo = [p.stage for p in plans if p.stage.name in wanted and p.status not in UP_TO_DATE]
    for stage in todo:
        _require_files(stage)
        stage.check()
    require_space(run, todo)
    for ask in {subject: ask for stage in todo for subject, ask in stage.asks.items()}.values():
        ask()
    for stage in todo:
        if stage.data is not None and not is_plan:
            stage.data().require()
        stage.check_data()
    return [stage.name for stage in todo]


def _warnings(stages: Iterable[Stage]) -> list[str]:
    """Problems with the data that make results of stages doubtful, without duplicates."""
    inputs = [stage.data() for stage in stages if stage.data is not None]
    return list(dict.fromkeys(line for one in inputs for line in one.warnings()))


def _begin(
    plans: Sequence[Plan], wanted: set[str], run: RunDir, anew: Mapping[str, str]
) -> tuple[int, str | None]:
    """Stores the settings and moves files of stages with known inputs, as one change.

    Returns:
        The number of the change (0: no change), and the provisional stage that must finish before
            the change is final.
    """
    transition, before = Transition(run), run.ledger()
    needed, moved, returned = _needed(plans, wanted), {}, []
    for plan in plans:
        name, owns = plan.stage.name, plan.stage.owns
        if name in anew:
            stays = plan.stage.stays
            moved[name] = transition.set_aside(name, owns, label="replaced", stays=stays)
        elif plan.back is not None and name in needed:
            moved[name] = transition.bring_back(name, plan.back, owns)
            returned.append(plan)
        elif name in wanted and plan.status == "stale" and plan.inputs_hash is not None:
            moved[name] = transition.set_aside(name, owns, stays=plan.stage.stays)
    number, undecided = store(transition, run), None
    for plan in plans if number else ():
        name = plan.stage.name
        if name in wanted and plan.inputs_hash is not None and _is_at_stake(plan, before):
            seconds = 0.0 if plan.back is None else plan.back.record.seconds
            transition.ledger[name] = StageRecord(
                plan.inputs_hash, "started", {}, seconds, plan.data, plan.stage.owns, number
            )
            undecided = name
    transition.commit()
    remember_data(returned)
    for name, where in moved.items():
        if where is not None:
            log.warning("%s: %s %s", name, anew.get(name, CHANGED), where)
    run.settings.stored()
    return number, undecided


def _is_at_stake(plan: Plan, ledger: Mapping[str, StageRecord]) -> bool:
    """Whether a finished stage of the same kind would be replaced by a provisional one."""
    finished = {name.partition("/")[0] for name, r in ledger.items() if r.state == "done"}
    return plan.stage.is_provisional and plan.status not in UP_TO_DATE and plan.kind in finished


def _expect(outlook: Outlook, plans: Iterable[Plan], todo: Container[str], run: RunDir) -> Outlook:
    """Adds the expected seconds of the stages that will run to the outlook; returns it."""
    ledger = run.ledger()
    found = {plan.stage.name: time_left(plan, ledger) for plan in plans if plan.stage.name in todo}
    outlook.seconds |= {name: seconds for name, seconds in found.items() if seconds is not None}
    return outlook


def _tell_next(
    stages: Sequence[Stage], run: RunDir, plans: Sequence[Plan], *, then_reports: bool
) -> None:
    """Logs the next command: that of the first stage that is not done, else `hwnas report`."""
    left = plan_stages(stages[len(plans) :], run, after=plans)
    missing = [plan.stage for plan in (*plans, *left) if plan.status not in UP_TO_DATE]
    if missing or not then_reports:
        log.info("next: %s", missing[0].command if missing else command_line("report", run.root))


def _needed(plans: Sequence[Plan], wanted: set[str]) -> set[str]:
    """Names of the wanted stages and of all stages that they need."""
    needed = set(wanted)
    for plan in reversed(plans):
        if plan.stage.name in needed:
            needed.update(plan.stage.needs)
    return needed


def _require_needs(
    plan: Plan, plans: Sequence[Plan], run: RunDir, *, made: Iterable[str] = ()
) -> None:
    needed = _needed(plans, {plan.stage.name}) - {plan.stage.name, *made}
    missing = [one for one in plans if one.stage.name in needed and one.status != "done"]
    if missing:
        options = run.settings.options and f" {run.settings.options}"
        raise UserError(
            f"stage {plan.stage.name!r} needs stages that are not up to date",
            found="; ".join(
                [
                    ", ".join(f"{need.stage.name} ({need.status})" for need in missing),
                    *data_changes(missing),
                ]
            ),
            where=run.root,
            fix=" && ".join(need.stage.command + options for need in missing),
        )


def _require_files(stage: Stage) -> None:
    for setting, path in stage.reads.items():
        if not path.is_file():
            raise UserError(
                f"stage {stage.name!r} needs a file that does not exist",
                expected=f"the file {path}",
                found="not a regular file" if path.exists() else "no such file",
                where=setting,
                fix="add the file, or change the setting",
            )
