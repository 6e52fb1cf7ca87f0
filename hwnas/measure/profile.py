"""Profiles a device into a table, and times exported models by the same protocol."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from hwnas.builders.onnx import context, micro
from hwnas.core.errors import UserError
from hwnas.core.progress import Progress, silent
from hwnas.core.records import STRICT
from hwnas.devices.spec import open_transport
from hwnas.interfaces import DeviceSpec, Transport
from hwnas.latency.construction import borders, context_id, contexts, op_id, op_rows
from hwnas.latency.plan import PROTOCOL, TimedFile
from hwnas.latency.samples import STATISTIC, Samples, Timing
from hwnas.latency.sections import N_ANCHORS, ProfileConfig
from hwnas.latency.table import Fact, LatencyTable, NetTiming, Protocol
from hwnas.latency.validation import fit_correction, fit_quality
from hwnas.measure.networks import network_id, network_models, serialized, validation_nets
from hwnas.measure.sessions import LEAST_KEPT, N_REFERENCES, time_all, time_missing
from hwnas.measure.timed import NetworkTimings, Timed, facts_of
from hwnas.spaces.index import enumerate_ops
from hwnas.spaces.ops import OpSpec
from hwnas.spaces.space import Codes, SearchSpace

__all__ = [
    "NetworkTimings",
    "Timings",
    "describe_cost",
    "profile",
    "time_models",
    "time_networks",
]

log = logging.getLogger(__name__)


def profile(
    space: SearchSpace,
    device: DeviceSpec,
    folder: Path,
    config: ProfileConfig,
    *,
    seed: int = 0,
    progress: Progress = silent,
    transport: Transport | None = None,
    earlier: Sequence[Path] = (),
) -> LatencyTable:
    """Measures a table for `space`, with its correction and validation.

    All operators, their empty contexts and `config.n_validation` whole networks take turns in one
    plan, so changes of the machine's speed affect all of them equally. `folder` stores plan and
    samples: an interrupted run resumes, and a finished one is not repeated. If `folder`, or one of
    the folders `earlier`, has samples of most of these models, only the others are timed
    (`measure.sessions`).

    Raises:
        UserError: the device cannot be profiled, or its kit failed.
    """
    ops = enumerate_ops(space)
    nets = validation_nets(space, config.n_validation, seed=seed)
    models: dict[str, bytes] = {}
    for op in ops:
        before, after = (border is not None for border in borders(op))
        model = micro(op, before=before, after=after, batch=device.batch, seed=seed)
        models[op_id(op)] = serialized(model, device)
    for border in contexts(ops):
        model = context(*border, batch=device.batch, seed=seed)
        models[context_id(border)] = serialized(model, device)
    models |= network_models(space, nets, device, seed=seed)
    timed = time_missing(
        models,
        device,
        folder,
        config,
        around={op_id(op): _contexts_of(op) for op in ops},
        earlier=earlier,
        seed=seed,
        progress=progress,
        transport=transport if transport is not None else open_transport(device),
    )
    rows, warnings = _rows(timed, ops)
    warnings = (*timed.warnings, *warnings)
    for warning in warnings:
        log.warning("%s", warning)
    measured = NetworkTimings.of(timed, space, nets)
    correction = fit_correction(rows, space, nets, measured.timings, measured.halves)
    return LatencyTable(
        device=device,
        protocol=Protocol(PROTOCOL, STATISTIC, config.hot_samples),
        source="measured",
        facts=measured.facts,
        rows=rows,
        corrections={space.id: correction},
        warnings=warnings,
        pace=timed.over_time,
    )


def _rows(timed: Timed, ops: Sequence[OpSpec]) -> tuple[dict[OpSpec, Timing], tuple[str, ...]]:
    """Rows of operators, each from the first session that timed it together with its contexts."""
    rows: dict[OpSpec, Timing] = {}
    warnings: tuple[str, ...] = ()
    for timings in timed.sessions:
        here = [
            op for op in ops if op not in rows and {op_id(op), *_contexts_of(op)} <= timings.keys()
        ]
        more, said = op_rows(timings, here)
        rows, warnings = rows | more, warnings + said
    return {op: rows[op] for op in ops}, warnings


def _contexts_of(op: OpSpec) -> list[str]:
    return [context_id(border) for border in borders(op) if border is not None]


def time_networks(
    space: SearchSpace,
    nets: Codes,
    device: DeviceSpec,
    folder: Path,
    config: ProfileConfig,
    *,
    seed: int = 0,
    progress: Progress = silent,
    transport: Transport | None = None,
) -> NetworkTimings:
    """Times whole networks [n, d] of a space, without operators. Resumes as `profile` does.

    Raises:
        UserError: the device cannot be timed, or its kit failed.
    """
    models = network_models(space, nets, device, seed=seed)
    samples = _time(models, device, folder, config, seed, progress, transport)
    return NetworkTimings.of(Timed.of(samples), space, nets)


def describe_cost(
    space: SearchSpace, config: ProfileConfig, known: Collection[str] = frozenset()
) -> str:
    """Cost of measuring a table of this space, in words.

    known: names of models that earlier sessions have timed (`measure.sessions.known_models`).
    """
    ops = enumerate_ops(space)
    models = {op_id(op) for op in ops} | {context_id(border) for border in contexts(ops)}
    n_items = len(models) + config.n_validation
    new = models - set(known)
    budget = f"{config.rounds} rounds, at most {config.time_budget_s:.0f} s of timing"
    if n_items - len(new) - config.n_validation < LEAST_KEPT * n_items:
        shares = f"{len(ops)} operators, {config.n_validation} whole networks"
        return f"{n_items} models ({shares}) x {budget}"
    n_ops = sum(op_id(op) in new for op in ops)
    n_timed = len(new) + config.n_validation + N_REFERENCES
    return (
        f"at most {n_timed} models ({n_ops} of {len(ops)} operators, {config.n_validation} whole "
        f"networks, and {N_REFERENCES} models again to measure the pace; the other models have "
        f"earlier samples) x {budget}"
    )


@dataclass(frozen=True)
class Timings:
    """Whole networks by name, timed together with networks of a table.

    repeat_noise: relative difference of two halves of the rounds, by name.
    repeat_mape: the same, averaged over all models and networks of the table.
    pace: time of networks of the table now / when it was measured (1.02: 2 % slower); None without
        a table.
    pace_spread: mean relative distance of these networks from the pace.

    `measure.drift.judge` compares a timing with an estimate.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    models: dict[str, Timing]
    repeat_noise: dict[str, float]
    repeat_mape: float
    pace: float | None
    facts: dict[str, Fact]
    pace_spread: float = 0.0

    @property
    def noise(self) -> float:
        """Relative uncertainty of the timings: the larger of `repeat_mape` and `pace_spread`."""
        return max(self.repeat_mape, self.pace_spread)


def time_models(
    models: Mapping[str, Path | bytes],
    device: DeviceSpec,
    folder: Path,
    config: ProfileConfig,
    *,
    table: LatencyTable | None = None,
    space: SearchSpace | None = None,
    seed: int = 0,
    progress: Progress = silent,
    transport: Transport | None = None,
) -> Timings:
    """Times models by the protocol and statistic of the table's whole networks.

    The statistic does not depend on other models in the plan (see `latency.samples`), so a few
    models can be compared with a table. With `table` and `space`, some validation networks of the
    table take turns with the models and determine the pace. Results in `folder` for the same models
    are reused; use an empty folder to measure again.

    models: files for the runtime of the device, or ONNX models.

    Raises:
        UserError: a model is missing, or the kit failed.
    """
    contents = {name: _content(name, model) for name, model in models.items()}
    anchors: dict[str, float] = {}
    if table is not None and space is not None:
        whole_space = replace(space, allowed=())  # anchors may have been pruned since then
        nets = _anchors(table, space)
        codes = np.array([net.codes for net in nets], dtype=np.int16)
        contents |= network_models(whole_space, codes, device, seed=seed)
        anchors = {
            network_id(whole_space, row): net.measured_ms
            for row, net in zip(codes, nets, strict=True)
        }
    samples = _time(contents, device, folder, config.retiming, seed, progress, transport)
    timings = samples.timings()
    even, odd = samples.halves()
    noise = dict(zip(samples.ids, np.abs(even - odd) / odd, strict=True))
    ratios = np.array([timings[name].median_ms / then for name, then in anchors.items()])
    pace = float(np.median(ratios)) if len(ratios) else None
    return Timings(
        models={name: timings[name] for name in models},
        repeat_noise={name: float(noise[name]) for name in models},
        repeat_mape=fit_quality(even, odd).mape,
        pace=pace,
        facts=facts_of(Timed.of(samples)),
        pace_spread=0.0 if pace is None else float(np.abs(ratios / pace - 1).mean()),
    )


def _anchors(table: LatencyTable, space: SearchSpace) -> list[NetTiming]:
    """Networks of the table that are timed again, from the fastest to the slowest."""
    if space.id not in table.corrections:
        return []
    known = sorted(table.corrections[space.id].validation.nets, key=lambda n: n.measured_ms)
    spread = np.linspace(0, len(known) - 1, min(N_ANCHORS, len(known)))
    return [known[int(position)] for position in spread.round()]


def _content(name: str, model: Path | bytes) -> bytes | TimedFile:
    if isinstance(model, bytes):
        return model
    if not model.is_file():
        raise UserError(
            f"the file of the model {name!r} is missing",
            expected="a model file",
            where=model,
            fix="restore the file, or export the model again",
        )
    return TimedFile.of(model)


def _time(
    models: Mapping[str, bytes | TimedFile],
    device: DeviceSpec,
    folder: Path,
    config: ProfileConfig,
    seed: int,
    progress: Progress,
    transport: Transport | None,
) -> Samples:
    return time_all(
        models,
        device=device,
        folder=folder,
        config=config,
        seed=seed,
        progress=progress,
        transport=transport if transport is not None else open_transport(device),
    )
