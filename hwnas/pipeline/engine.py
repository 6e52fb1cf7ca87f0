"""The stage graph: what runs, in which order, and what a change makes stale."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Literal

from hwnas.core.errors import UserError
from hwnas.core.rundir import RunDir, StageRecord
from hwnas.core.store import remove_partial
from hwnas.pipeline.inputs import DataInput, inputs_hash

__all__ = ["Plan", "Stage", "data_changes", "execute", "maker", "plan_stages"]

log = logging.getLogger(__name__)

Status = Literal["done", "continues", "stale", "new"]


@dataclass(frozen=True)
class Stage:
    """One step of the pipeline.

    `settings` is the JSON-ready part of the configuration it depends on, `needs` the stages whose
    outputs it reads, `owns` the run-relative paths it writes and `outputs` those of them that later
    stages rely on (with * as in a shell). `command` runs it alone; `cost` says in words what it
    will take. `reads` are files outside the run folder, by the setting that names them. `check`
    raises a `UserError` if the stage can never work; it takes no time. `settled`: whether the
    outputs answer everything; where a check could not be judged they do not, and the next command
    runs the stage again. `data`: the data that it reads, as they are when it is asked.
    """

    name: str
    command: str
    needs: tuple[str, ...]
    settings: Any
    owns: tuple[str, ...]
    outputs: tuple[str, ...]
    run: Callable[[], None]
    cost: str
    reads: Mapping[str, Path] = field(default_factory=dict)
    check: Callable[[], None] = lambda: None
    settled: Callable[[], bool] = lambda: True
    data: Callable[[], DataInput] | None = None


@dataclass(frozen=True)
class Plan:
    """Status of one stage against the ledger. `inputs_hash` is None while an input is missing.

    data: digest of the data that the stage would read. change: how the data changed since it ran.
    """

    stage: Stage
    status: Status
    inputs_hash: str | None
    data: str | None = None
    change: str = ""


def plan_stages(stages: Sequence[Stage], run: RunDir) -> list[Plan]:
    """Status of every stage, in order.

    `done`: nothing to do. `continues`: it was interrupted and resumes. `stale`: settings or inputs
    changed, its files will be moved aside. `new`: never ran.
    """
    ledger = run.ledger()
    plans: dict[str, Plan] = {}
    for stage in stages:
        record = ledger.get(stage.name)
        ready = all(plans[need].status == "done" for need in stage.needs)
        data = stage.data() if stage.data is not None else None
        change = ""
        if record is not None and data is not None and data.changed(record):
            change = data.change(str(data.before(record)))
        if record is None:
            status: Status = "new"
        elif not ready or change or record.inputs_hash != _hash(stage, ledger, record.data):
            status = "stale" if ready or change or record.state == "done" else "continues"
        else:
            status = "done" if run.intact(record) and stage.settled() else "continues"
        digest = data.digest if data is not None else None
        plans[stage.name] = Plan(
            stage, status, _hash(stage, ledger, digest) if ready else None, digest, change
        )
    return list(plans.values())


def execute(stages: Sequence[Stage], run: RunDir, *, only: Iterable[str] | None = None) -> None:
    """Bring `only` (default: all stages) up to date, in order; the caller holds the run's lock.

    Raises:
        UserError: a stage outside `only` that is needed is not up to date. Before the first stage
            runs: one of the stages can never work, or a file that it reads is missing.
    """
    wanted = {stage.name for stage in stages} if only is None else set(only)
    planned = plan_stages(stages, run)
    for line in data_changes(planned):
        log.warning("%s", line)
    for plan in planned:
        if plan.stage.name in wanted and plan.status != "done":
            plan.stage.check()
            _require_files(plan.stage)
            if plan.stage.data is not None:
                plan.stage.data().require()
    by_name = {stage.name: stage for stage in stages}
    for name in by_name:
        if name not in wanted:
            continue
        plans = {plan.stage.name: plan for plan in plan_stages(stages, run)}
        plan = plans[name]
        missing = [plans[need] for need in plan.stage.needs if plans[need].status != "done"]
        if missing:
            raise UserError(
                f"stage {name!r} needs stages that are not up to date",
                found="; ".join(
                    [
                        ", ".join(f"{need.stage.name} ({need.status})" for need in missing),
                        *data_changes(missing),
                    ]
                ),
                where=run.root,
                fix=" && ".join(need.stage.command for need in missing),
            )
        if plan.status == "done":
            log.info("%s: up to date", name)
            continue
        _run_stage(plan, run)


def data_changes(plans: Iterable[Plan]) -> list[str]:
    """How the data changed since stages read them, in words, a line for each change."""
    names: dict[str, list[str]] = {}
    for plan in plans:
        if plan.change:
            names.setdefault(plan.change, []).append(f"`{plan.stage.name}`")
    return [
        f"the data changed since {', '.join(stages)}: {change}" for change, stages in names.items()
    ]


def maker(stages: Sequence[Stage], path: str) -> str | None:
    """The command that makes a run-relative path; None where no stage does."""
    for stage in stages:
        if any(fnmatch(path, own) or path.startswith(f"{own}/") for own in stage.owns):
            return stage.command
    return None


def _require_files(stage: Stage) -> None:
    for setting, path in stage.reads.items():
        if not path.is_file():
            raise UserError(
                f"stage {stage.name!r} needs a file that is not there",
                expected="a file",
                found=path,
                where=setting,
                fix="put it there, or change the setting",
            )


def _run_stage(plan: Plan, run: RunDir) -> None:
    stage, inputs_hash = plan.stage, plan.inputs_hash
    assert inputs_hash is not None  # all needs are done
    record = run.ledger().get(stage.name)
    if record is not None and plan.status == "stale":
        moved = run.supersede(stage.name, record.inputs_hash, [run.path(p) for p in stage.owns])
        if moved is not None:
            log.warning("%s: settings or inputs changed; old files moved to %s", stage.name, moved)
        record = None
    elif record is not None and (damaged := run.damaged(record)):
        moved = run.supersede(stage.name, "damaged", damaged)
        log.warning("%s: altered outputs moved to %s; they are made again", stage.name, moved)
    for name in stage.owns:
        remove_partial(run.path(name))
    earlier_s = record.seconds if record is not None else 0.0
    log.info("%s: %s", stage.name, "continues" if plan.status == "continues" else "starts")
    run.record(stage.name, StageRecord(inputs_hash, "started", {}, earlier_s, plan.data))
    begin = time.monotonic()
    try:
        stage.run()
    except BaseException:
        spent = earlier_s + time.monotonic() - begin
        with contextlib.suppress(UserError):  # a full disk; what stopped the stage matters more
            seconds = round(spent, 2)
            run.record(stage.name, StageRecord(inputs_hash, "started", {}, seconds, plan.data))
        raise
    spent = earlier_s + time.monotonic() - begin
    outputs = run.hash_outputs([path for name in stage.outputs for path in run.matching(name)])
    run.record(stage.name, StageRecord(inputs_hash, "done", outputs, round(spent, 2), plan.data))
    log.info("%s: done in %.1f s", stage.name, spent)


def _hash(stage: Stage, ledger: dict[str, StageRecord], data: str | None) -> str:
    return inputs_hash(stage.settings, {need: ledger[need].outputs for need in stage.needs}, data)
