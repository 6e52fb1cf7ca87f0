"""Profiles a device into a table, and times exported models by the same protocol."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from hwnas.builders.onnx import context, micro
from hwnas.core.errors import UserError
from hwnas.core.progress import Progress, silent
from hwnas.core.records import STRICT
from hwnas.core.stats import Z90
from hwnas.devices.spec import open_transport
from hwnas.interfaces import DeviceSpec, FloatArray, Transport
from hwnas.latency.construction import borders, context_id, contexts, op_id, op_rows
from hwnas.latency.plan import PROTOCOL, TimedFile, write_plan
from hwnas.latency.samples import STATISTIC, Samples, Timing, read_samples
from hwnas.latency.sections import ProfileConfig
from hwnas.latency.table import Fact, LatencyTable, NetTiming, Protocol
from hwnas.latency.validation import fit_correction, fit_quality
from hwnas.measure.networks import network_id, network_models, serialized, validation_nets
from hwnas.spaces.index import enumerate_ops
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

N_ANCHORS = 6  # networks of the table that are timed again, for the pace of the machine
MAX_RETIMING_ROUNDS = 2000


def profile(
    space: SearchSpace,
    device: DeviceSpec,
    folder: Path,
    config: ProfileConfig,
    *,
    seed: int = 0,
    progress: Progress = silent,
    transport: Transport | None = None,
) -> LatencyTable:
    """Measures a table for `space`, with its correction and validation.

    All operators, their empty contexts and `config.n_validation` whole networks take turns in one
    plan, so changes of the machine's speed affect all of them equally. `folder` stores plan and
    samples: an interrupted run resumes, and a finished one is not repeated.

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
    samples = _time(models, device, folder, config, seed, progress, transport)
    rows, warnings = op_rows(samples.timings(), ops)
    warnings = (*samples.warnings, *warnings)
    for warning in warnings:
        log.warning("%s", warning)
    measured = NetworkTimings.of(samples, space, nets)
    return LatencyTable(
        device=device,
        protocol=Protocol(PROTOCOL, STATISTIC, config.hot_samples),
        source="measured",
        facts=measured.facts,
        rows=rows,
        corrections={
            space.id: fit_correction(rows, space, nets, measured.timings, measured.halves)
        },
        warnings=warnings,
        pace=samples.pace(),
    )


@dataclass(frozen=True)
class NetworkTimings:
    """Whole networks timed together. `halves`: latencies [n] from the even and the odd rounds."""

    timings: tuple[Timing, ...]
    halves: tuple[FloatArray, FloatArray]
    facts: dict[str, Fact]

    @staticmethod
    def of(samples: Samples, space: SearchSpace, nets: Codes) -> NetworkTimings:
        """Timings of `nets` [n, d], which are items of `samples`."""
        position = {name: i for i, name in enumerate(samples.ids)}
        rows = [position[network_id(space, row)] for row in nets]
        timings, (even, odd) = samples.timings(), samples.halves()
        return NetworkTimings(
            tuple(timings[samples.ids[i]] for i in rows), (even[rows], odd[rows]), _facts(samples)
        )


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
    return NetworkTimings.of(samples, space, nets)


def describe_cost(space: SearchSpace, config: ProfileConfig) -> str:
    """Cost of measuring a table of this space, in words."""
    ops = enumerate_ops(space)
    n_items = len(ops) + len(contexts(ops)) + config.n_validation
    return (
        f"{n_items} models ({len(ops)} ops, {config.n_validation} whole nets) x {config.rounds}"
        f" rounds, at most {config.time_budget_s:.0f} s of timing"
    )


@dataclass(frozen=True)
class Timings:
    """Whole networks by name, timed together with networks of a table.

    repeat_noise: relative difference of two halves of the rounds, by name.
    repeat_mape: the same, averaged over all models and anchors.
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
        """Uncertainty of timings: within this run, and since the table was measured."""
        return max(self.repeat_mape, self.pace_spread)

    def widened(self, estimate_ms: FloatArray, interval_ms: FloatArray) -> FloatArray:
        """90 % intervals [n, 2] of timings at the table's speed, from those of estimates [n].

        If load slows some networks down more than others, no pace is right for all of them. The
        networks of the table, timed again, show by how much. They lie evenly between the fastest
        and the slowest one, so their mean distance from the pace is about the standard deviation
        over all networks. Its 90 % interval and the half-widths add up in quadrature.
        """
        spread = estimate_ms * Z90 * self.pace_spread
        low = estimate_ms - np.hypot(estimate_ms - interval_ms[:, 0], spread)
        high = estimate_ms + np.hypot(interval_ms[:, 1] - estimate_ms, spread)
        return np.stack([np.maximum(low, 0.0), high], axis=1)


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
    quick = config.model_copy(
        update={
            "rounds": MAX_RETIMING_ROUNDS,
            "time_budget_s": config.retiming_budget_s,
            "target_error": 0.0,  # timings of one quiet second do not predict the next
        }
    )
    samples = _time(contents, device, folder, quick, seed, progress, transport)
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
        facts=_facts(samples),
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
        raise UserError(f"no model {name!r} to time", where=model)
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
    plan = write_plan(models, device, folder, config, seed=seed)
    transport = transport if transport is not None else open_transport(device)
    transport.run_bench(plan.path, plan.results, progress=progress)
    return read_samples(plan)


def _facts(samples: Samples) -> dict[str, Fact]:
    """Facts on host, runtime and number of samples, as a flat mapping."""
    header = samples.facts
    return {
        **header["host"],
        "runtime": header["runtime"],
        "runtime_version": header["runtime_version"],
        "rounds": samples.hot.shape[1],
    }
