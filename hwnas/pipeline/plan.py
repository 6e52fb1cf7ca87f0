"""The stage graph: stages, and their status in a run folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Literal

from hwnas.core.rundir import RunDir, StageRecord
from hwnas.core.versions import Version, find_version
from hwnas.pipeline.inputs import DataInput, changed_settings, inputs_hash

__all__ = [
    "UP_TO_DATE",
    "Plan",
    "Stage",
    "data_changes",
    "is_done",
    "maker",
    "plan_stages",
    "time_left",
]

Status = Literal["done", "continues", "returns", "stale", "new"]
UP_TO_DATE = ("done", "returns")


@dataclass(frozen=True)
class Stage:
    """One step of the pipeline.

    settings: the part of the configuration on which it depends, as JSON values.
    needs: the stages whose outputs it reads.
    owns: the run-relative paths that it writes.
    outputs: the paths on which later stages depend; can contain wildcards.
    command: the command that runs only this stage.
    cost: the expected work, in words.
    reads: maps settings to the files outside the run folder that they name.
    check: raises a `UserError` within seconds if the stage cannot work.
    check_data: like `check`, for problems that only the loaded data set shows.
    asks: checks that several stages share, by subject, such as `device local`. The checks of one
        subject are equal, so only one of them runs.
    writes: returns a low estimate of the size of its outputs in bytes.
    settled: returns whether its outputs are final. Outputs with checks that could not be judged are
        not final, so the next command runs the stage again.
    is_provisional: whether new settings are only final after the stage has finished; until then the
        earlier results are kept.
    remade: further files (with wildcards) without which the stage is not done. Changes of its other
        files are only reported.
    stays: the paths of `owns` that stay until the stage replaces them, so that they can be used
        while it runs; superseded/ gets a copy.
    data: returns the current data that the stage reads.
    names: the key path in the configuration of each item of `settings`.
    seconds: returns its estimated duration from the beginning; None if unknown.
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
    check_data: Callable[[], None] = lambda: None
    writes: Callable[[], int] = lambda: 0
    asks: Mapping[str, Callable[[], None]] = field(default_factory=dict)
    settled: Callable[[], bool] = lambda: True
    is_provisional: bool = False
    remade: tuple[str, ...] = ()
    stays: tuple[str, ...] = ()
    data: Callable[[], DataInput] | None = None
    names: tuple[str, ...] = ()
    seconds: Callable[[], float | None] = lambda: None


@dataclass(frozen=True)
class Plan:
    """Status of one stage relative to the ledger. `inputs_hash` is None if an input is missing.

    data: digest of the data that the stage would read. change: how the data changed since it ran.
    back: files of the stage with these inputs, which are moved back from superseded/. why: the
    reason of the status, if the stage has run before and is not done.
    """

    stage: Stage
    status: Status
    inputs_hash: str | None
    data: str | None = None
    change: str = ""
    back: Version | None = None
    why: str = ""

    @property
    def kind(self) -> str:
        """The first part of the stage's name: `profile`, `search`."""
        return self.stage.name.partition("/")[0]

    @property
    def cost(self) -> str:
        """The remaining work, in words."""
        return self.stage.cost if self.status != "returns" else "none: earlier files move back"


def plan_stages(stages: Sequence[Stage], run: RunDir, *, after: Sequence[Plan] = ()) -> list[Plan]:
    """Status of every stage, in order. `after`: still valid plans of earlier stages.

    `done`: nothing to do. `continues`: it was interrupted and will resume. `returns`: it was
    finished with these settings before others were tried; its files will be moved back. `stale`:
    settings or inputs changed; its files will be set aside. `new`: it never ran.
    """
    ledger = run.ledger()
    ledger |= {plan.stage.name: plan.back.record for plan in after if plan.back is not None}
    plans = {plan.stage.name: plan for plan in after}
    for stage in stages:
        waits = [need for need in stage.needs if plans[need].status not in UP_TO_DATE]
        data = stage.data() if stage.data is not None else None
        plan = plans[stage.name] = _plan(stage, run, ledger, waits=waits, data=data)
        if plan.back is not None:
            ledger[stage.name] = plan.back.record
    return [plans[stage.name] for stage in stages]


def _plan(
    stage: Stage,
    run: RunDir,
    ledger: Mapping[str, StageRecord],
    *,
    waits: Sequence[str],
    data: DataInput | None,
) -> Plan:
    """Status of one stage; `waits`: needed stages that are not up to date."""
    record, back, change, ready = ledger.get(stage.name), None, "", not waits

    def fits(record: StageRecord) -> bool:
        if not ready or (data is not None and data.changed(record)):
            return False
        return record.inputs_hash == _hash(stage, ledger, record.data)

    if record is not None and data is not None and data.changed(record):
        change = data.change(str(data.before(record)))
    if ready and (record is None or not fits(record)):
        back = find_version(run, stage.name, fits)
    if back is not None:
        status: Status = "returns" if back.record.state == "done" else "continues"
    elif record is None:
        status = "new"
    elif fits(record):
        is_whole = run.intact(record) and not lost(stage, record, run)
        status = "done" if is_whole and stage.settled() else "continues"
    else:
        status = "stale" if ready or change or record.state == "done" else "continues"
    digest = data.digest if data is not None else None
    inputs = _hash(stage, ledger, digest) if ready else None
    why = ""
    if record is not None and status in ("stale", "continues"):
        why = _why(stage, record, status, change, waits, has_lost=bool(lost(stage, record, run)))
    return Plan(stage, status, inputs, digest, change, back, why)


def _why(
    stage: Stage,
    record: StageRecord,
    status: Status,
    change: str,
    waits: Sequence[str],
    *,
    has_lost: bool,
) -> str:
    """Why a stage that has run before runs again, or goes on."""
    if status == "continues":
        if record.state == "started":
            return "it was interrupted"
        return "some of its files are missing or changed" if has_lost else "it is not complete"
    found = changed_settings(stage.names, stage.settings, record.settings)
    found += [f"the data changed: {change}"] if change else []
    found += [f"{', '.join(waits)} run{'s' * (len(waits) == 1)} first"] if waits else []
    return "; ".join(found) or (
        "its inputs changed" if record.settings else "settings or inputs changed"
    )


def lost(stage: Stage, record: StageRecord, run: RunDir) -> list[str]:
    """Files of `Stage.remade` that the stage must make again: they are changed or missing."""
    return run.altered(
        {
            name: digest
            for name, digest in record.kept.items()
            if any(fnmatch(name, pattern) for pattern in stage.remade)
        }
    )


LEAST_LEFT = 0.1
"""Minimum time left of an interrupted stage, as a share of its estimate."""


def time_left(plan: Plan, ledger: Mapping[str, StageRecord]) -> float | None:
    """Estimated seconds that a stage still takes; 0 if it is done; None: unknown."""
    if plan.status in UP_TO_DATE:
        return 0.0
    seconds = plan.stage.seconds()
    if seconds is None or plan.status != "continues" or plan.stage.name not in ledger:
        return seconds
    return max(seconds - ledger[plan.stage.name].seconds, LEAST_LEFT * seconds)


def is_done(run: RunDir, name: str, settings: Any) -> bool:
    """Whether a stage that reads neither data nor other stages is up to date with `settings`."""
    record = run.ledger().get(name)
    if record is None or record.inputs_hash != inputs_hash(settings, {}, None):
        return False
    return run.intact(record)


def data_changes(plans: Iterable[Plan]) -> list[str]:
    """Changes of the data since stages read them, one line per change."""
    names: dict[str, list[str]] = {}
    for plan in plans:
        if plan.change:
            names.setdefault(plan.change, []).append(f"`{plan.stage.name}`")
    return [
        f"the data changed since {', '.join(stages)}: {change}" for change, stages in names.items()
    ]


def maker(stages: Sequence[Stage], path: str) -> str | None:
    """The command that writes a run-relative path; None if no stage writes it."""
    for stage in stages:
        if any(fnmatch(path, own) or path.startswith(f"{own}/") for own in stage.owns):
            return stage.command
    return None


def _hash(stage: Stage, ledger: Mapping[str, StageRecord], data: str | None) -> str:
    return inputs_hash(stage.settings, {need: ledger[need].outputs for need in stage.needs}, data)
