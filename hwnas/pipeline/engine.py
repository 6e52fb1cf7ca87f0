"""Runs stages: checks first, then sets stale files aside, moves earlier files back, and executes.

`core/versions.py` finds the files of the run folder that belong to given settings.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import replace

from hwnas.core.command import command_line
from hwnas.core.errors import HwnasError, UserError
from hwnas.core.history import store, take_back
from hwnas.core.rundir import RunDir, StageRecord
from hwnas.core.store import explained, remove_partial
from hwnas.core.versions import Transition
from hwnas.pipeline.disk import require_space
from hwnas.pipeline.plan import UP_TO_DATE, Plan, Stage, data_changes, lost, plan_stages

__all__ = ["check_stages", "execute"]

log = logging.getLogger(__name__)

CHANGED = "settings or inputs changed; old files moved to"
ALTERED = "altered outputs moved to"


def execute(
    stages: Sequence[Stage],
    run: RunDir,
    *,
    only: Iterable[str] | None = None,
    anew: Mapping[str, str] | None = None,
) -> None:
    """Brings `only` (default: all stages) up to date, in order. The caller must hold the lock.

    First all checks run. Then the configuration is stored and the files of changed stages are
    moved, as one change. If a stage fails later, the change stays, unless it was provisional; the
    error names the command that undoes it.

    anew: stages to repeat in any case, with the reason.

    Raises:
        UserError: a stage outside `only` is needed but not up to date. Before any change: a stage
            cannot work, or a file that it reads is missing.
    """
    wanted = {stage.name for stage in stages} if only is None else set(only)
    plans = [
        replace(plan, status="stale") if plan.stage.name in (anew or {}) else plan
        for plan in plan_stages(stages, run)
    ]
    for line in data_changes(plans):
        log.warning("%s", line)
    made = wanted | {plan.stage.name for plan in plans if plan.status == "returns"}
    for plan in plans:
        if plan.stage.name in wanted and plan.status not in UP_TO_DATE:
            _require_needs(plan, plans, run, made=made)
    todo = check_stages(plans, wanted, run)
    for line in _warnings(plan.stage for plan in plans if plan.stage.name in todo):
        log.warning("%s", line)
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
                _look_after(plans[-1], run)
            else:
                _run_stage(plans[-1], run)
                plans[-1:] = plan_stages([stage], run, after=plans[:-1])
            if stage.name == provisional:
                provisional = None
    except BaseException as error:
        if provisional is not None:
            with contextlib.suppress(UserError):  # the error of the stage is more important
                take_back(run, provisional, change)
        elif change and isinstance(error, HwnasError):
            error.add_way_out(
                f"{command_line('undo', run.root)}, which brings back settings and stages of before"
            )
        raise


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
            moved[name] = transition.set_aside(name, owns, label="replaced")
        elif plan.back is not None and name in needed:
            moved[name] = transition.bring_back(name, plan.back, owns)
            returned.append(plan)
        elif name in wanted and plan.status == "stale" and plan.inputs_hash is not None:
            moved[name] = transition.set_aside(name, owns)
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
    _remember_data(returned)
    for name, where in moved.items():
        if where is not None:
            log.warning("%s: %s %s", name, anew.get(name, CHANGED), where)
    run.settings.stored()
    return number, undecided


def _remember_data(returned: Iterable[Plan]) -> None:
    """Records the data of stages that were moved back."""
    for plan in returned:
        if plan.stage.data is not None:
            plan.stage.data().remember()


def _is_at_stake(plan: Plan, ledger: Mapping[str, StageRecord]) -> bool:
    """Whether a finished stage of the same kind would be replaced by a provisional one."""
    finished = {name.partition("/")[0] for name, r in ledger.items() if r.state == "done"}
    return plan.stage.is_provisional and plan.status not in UP_TO_DATE and plan.kind in finished


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
    by_name = {plan.stage.name: plan for plan in plans}
    missing = [
        by_name[need]
        for need in plan.stage.needs
        if by_name[need].status != "done" and need not in made
    ]
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
                expected="a file",
                found=path,
                where=setting,
                fix="add the file, or change the setting",
            )


def _run_stage(plan: Plan, run: RunDir) -> None:
    stage, inputs_hash = plan.stage, plan.inputs_hash
    assert inputs_hash is not None  # all needed stages are done
    record = _make_way(plan, run)
    if plan.status == "returns" and stage.settled():
        log.info("%s: made before, moved back from superseded/", stage.name)
        return
    for name in stage.owns:
        remove_partial(run.path(name))
    earlier_s, undo = (record.seconds, record.undo) if record is not None else (0.0, 0)
    is_first = plan.status != "continues" or bool(undo and not earlier_s)
    log.info("%s: %s", stage.name, "starts" if is_first else "continues")
    started = StageRecord(inputs_hash, "started", {}, earlier_s, plan.data, stage.owns, undo)
    run.record(stage.name, started)
    begin = time.monotonic()
    try:
        with explained(f"finish stage {stage.name!r}", run.root):
            stage.run()
    except BaseException:
        spent = earlier_s + time.monotonic() - begin
        with contextlib.suppress(UserError):  # a full disk; the stage's error has priority
            run.record(stage.name, replace(started, seconds=round(spent, 2)))
        raise
    spent = earlier_s + time.monotonic() - begin
    outputs = run.hash_outputs([path for name in stage.outputs for path in run.matching(name)])
    done = StageRecord(inputs_hash, "done", outputs, round(spent, 2), plan.data, stage.owns)
    run.record(stage.name, replace(done, kept=_kept(run, stage, outputs), grown=run.grown()))
    log.info("%s: done in %.1f s", stage.name, spent)


def _damaged(stage: Stage, record: StageRecord, run: RunDir) -> list[str]:
    """Files with changed content that the stage will rebuild."""
    there = [name for name in lost(stage, record, run) if run.path(name).is_file()]
    return [*run.damaged(record), *there]


def _kept(run: RunDir, stage: Stage, outputs: Mapping[str, str]) -> dict[str, str]:
    """Hashes of the files of a stage that are not its outputs."""
    found = run.hash_outputs(run.left_by(stage.owns))
    return {name: digest for name, digest in found.items() if name not in outputs}


def _look_after(plan: Plan, run: RunDir) -> None:
    """Reports changed files of a finished stage; records the hashes of unrecorded files."""
    record = run.ledger()[plan.stage.name]
    if record.data and plan.stage.data is not None and plan.stage.data().first is None:
        _remember_data([plan])
    if not (record.kept or record.grown):
        kept = _kept(run, plan.stage, record.outputs)
        run.record(plan.stage.name, replace(record, kept=kept, grown=run.grown()))
        return
    for name in (*run.altered(record.kept), *run.rewritten(record)):
        log.warning(
            "%s: %s was changed or removed; results no longer depend on it",
            plan.stage.name,
            run.path(name),
        )


def _make_way(plan: Plan, run: RunDir) -> StageRecord | None:
    """Sets files with other settings and damaged files aside. Returns the record to resume from.

    If superseded/ has files with the current settings, they are moved back.
    """
    stage, transition = plan.stage, Transition(run)
    record = transition.ledger.get(stage.name)
    why, moved = CHANGED, None
    if plan.back is not None:
        moved = transition.bring_back(stage.name, plan.back, stage.owns)
    elif record is not None and plan.status == "stale":
        moved = transition.set_aside(stage.name, stage.owns)
    elif record is not None and (damaged := _damaged(stage, record, run)):
        why = ALTERED
        moved = transition.set_aside(stage.name, damaged, label="damaged")
        transition.ledger[stage.name] = record
    record = transition.ledger.get(stage.name)
    transition.commit()
    if plan.back is not None:
        _remember_data([plan])
    if moved is not None:
        log.warning("%s: %s %s", stage.name, why, moved)
    return record
