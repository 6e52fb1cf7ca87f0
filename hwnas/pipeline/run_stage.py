"""Runs one stage: sets old files aside, executes it, records its outputs."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace

from hwnas.core.errors import UserError
from hwnas.core.progress import duration
from hwnas.core.rundir import RunDir, StageRecord
from hwnas.core.store import explained, remove_partial
from hwnas.core.versions import Transition
from hwnas.pipeline.inputs import settings_by_path
from hwnas.pipeline.plan import Plan, Stage, lost

__all__ = ["CHANGED", "look_after", "remember_data", "run_stage"]

log = logging.getLogger(__name__)

CHANGED = "settings or inputs changed; old files moved to"
ALTERED = "altered outputs moved to"


def run_stage(plan: Plan, run: RunDir, *, expected: str = "") -> None:
    """Runs and records a stage after all stages it needs. `expected`: its time, in words."""
    stage, inputs_hash = plan.stage, plan.inputs_hash
    assert inputs_hash is not None  # all needs are done
    record = _make_way(plan, run)
    if plan.status == "returns" and stage.settled():
        log.info("%s: earlier files were moved back from superseded/", stage.name)
        return
    for name in stage.owns:
        remove_partial(run.path(name))
    earlier_s, undo = (record.seconds, record.undo) if record is not None else (0.0, 0)
    is_first = plan.status != "continues" or bool(undo and not earlier_s)
    log.info("%s: %s%s", stage.name, "starts" if is_first else "continues", expected)
    started = StageRecord(inputs_hash, "started", {}, earlier_s, plan.data, stage.owns, undo)
    started = replace(started, settings=settings_by_path(stage.names, stage.settings))
    run.record(stage.name, started)
    begin = time.monotonic()
    try:
        with explained(f"finish stage {stage.name!r}", run.root):
            stage.run()
    except BaseException:
        spent = earlier_s + time.monotonic() - begin
        with contextlib.suppress(UserError):  # a full disk; what stopped the stage matters more
            run.record(stage.name, replace(started, seconds=round(spent, 2)))
        raise
    spent = earlier_s + time.monotonic() - begin
    outputs = run.hash_outputs([path for name in stage.outputs for path in run.matching(name)])
    done = replace(started, state="done", outputs=outputs, seconds=round(spent, 2), undo=0)
    run.record(stage.name, replace(done, kept=_kept(run, stage, outputs), grown=run.grown()))
    log.info("%s: done in %s", stage.name, duration(spent) if spent >= 10 else f"{spent:.1f} s")


def _damaged(stage: Stage, record: StageRecord, run: RunDir) -> list[str]:
    """Files that exist with changed content, and that the stage makes again."""
    there = [name for name in lost(stage, record, run) if run.path(name).is_file()]
    return [*run.damaged(record), *there]


def _kept(run: RunDir, stage: Stage, outputs: Mapping[str, str]) -> dict[str, str]:
    """Hashes of the files of a stage that are not its outputs."""
    found = run.hash_outputs(run.left_by(stage.owns))
    return {name: digest for name, digest in found.items() if name not in outputs}


def look_after(plan: Plan, run: RunDir) -> None:
    """Warns of changed files of a finished stage; records hashes that are not yet recorded."""
    record = run.ledger()[plan.stage.name]
    if record.data and plan.stage.data is not None and plan.stage.data().first is None:
        remember_data([plan])
    if not (record.kept or record.grown):
        kept = _kept(run, plan.stage, record.outputs)
        run.record(plan.stage.name, replace(record, kept=kept, grown=run.grown()))
        return
    for name in (*run.altered(record.kept), *run.rewritten(record)):
        log.warning(
            "%s was changed or removed; the finished stage %s no longer reads it, and its results"
            " stay valid",
            run.path(name),
            plan.stage.name,
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
        moved = transition.set_aside(stage.name, stage.owns, stays=stage.stays)
    elif record is not None and (damaged := _damaged(stage, record, run)):
        why = ALTERED
        moved = transition.set_aside(stage.name, damaged, label="damaged")
        transition.ledger[stage.name] = record
    record = transition.ledger.get(stage.name)
    transition.commit()
    if plan.back is not None:
        remember_data([plan])
    if moved is not None:
        log.warning("%s: %s %s", stage.name, why, moved)
    return record


def remember_data(returned: Iterable[Plan]) -> None:
    """Records the data of stages that were moved back."""
    for plan in returned:
        if plan.stage.data is not None:
            plan.stage.data().remember()
