"""Latency of a bundle on this host: estimate, earlier measurement, new measurement, limits.

A bundle contains no networks of its table, so its own models determine the pace of the machine. The
pace for a model is the median of now / then over the *other* models of the same run, so that a
model cannot hide its own slow-down. A single model is compared without a pace; a note says so.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from hwnas.core.confined import inside, read_regular
from hwnas.core.env import host_facts
from hwnas.core.progress import Progress
from hwnas.core.store import explained
from hwnas.devices.kit import KitFailed
from hwnas.devices.runtimes import describe_runtime, runtime_names
from hwnas.exporters.engine import MAX_BYTES
from hwnas.exporters.manifest import LatencyFact, Manifest
from hwnas.exporters.opened import CannotRunHere
from hwnas.exporters.own import require_own
from hwnas.interfaces import DeviceSpec, Metric
from hwnas.measure.drift import Judgement, can_judge, judge, noise_text, pace_text, verdict, worst
from hwnas.measure.limits import CheckSettings, VerifyConfig, timed_limits
from hwnas.measure.profile import Timings, time_models

__all__ = ["LatencyReport", "check_latency"]


@dataclass
class LatencyReport:
    """Results of `check_latency`: a row per model and device, and texts.

    failed: models that are too slow.
    not_judged: models without a result, with the reason.
    notes: checks that were not made, with the reason.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    not_judged: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def check_latency(
    folder: Path,
    manifest: Manifest,
    settings: CheckSettings,
    progress: Progress,
    *,
    trust: bool = False,
) -> LatencyReport:
    """Times the models of a bundle that were measured on this host, and judges them.

    The latency of a model must not exceed the larger of two values: its earlier latency plus the
    accepted error of an estimate, and the upper end of the interval of the estimate. The limit of
    the search is widened by this interval, as in stage `verify`. Timings are compared at the speed
    that the machine had when the bundle was made.

    trust: also run engines that this hwnas did not build.
    """
    report = LatencyReport()
    here = host_facts()["cpu"]
    for group in _groups(manifest.latency):
        device, host = group[0].device, group[0].host
        try:
            if device.transport != "local":
                raise CannotRunHere(f"the transport of the device is {device.transport}")
            if host != here:
                raise CannotRunHere(f"this machine is {here}")
            _require_runtime(device)
            for fact in group:
                _require_trust(inside(folder, fact.model), trust)
            timings = _time_here(folder, group, settings, progress)
        except (CannotRunHere, KitFailed) as error:
            report.notes.append(
                f"latency on {device.name} ({host}) not measured here: "
                f"{str(error).splitlines()[0]}; neither latency nor limits are judged. To judge"
                " them, run `python3 device_run.py --check .` in the bundle on that machine"
            )
            report.rows += [_row(manifest, fact) for fact in group]
            continue
        for fact in group:
            judged = judge(timings.models[_id(fact)], fact.forecast_ms, _pace(fact, group, timings))
            _judge(report, manifest, fact, judged, settings.verify, timings.repeat_mape)
    return report


def _require_runtime(device: DeviceSpec) -> None:
    """Refuses a device whose runtime is not installed here.

    Raises:
        CannotRunHere: names the missing packages.
    """
    known = device.runtime in runtime_names()
    missing = describe_runtime(device.runtime).missing if known else (device.runtime,)
    if missing:
        raise CannotRunHere(f"not installed: {', '.join(missing)}")


def _require_trust(model: Path, trust: bool) -> None:
    """Refuses an engine that this hwnas did not build, because running it can run untrusted code.

    Raises:
        CannotRunHere: the engine is not trusted.
    """
    if model.suffix == ".engine" and not trust:
        with explained("read an engine", model):
            require_own(read_regular(model, at_most=MAX_BYTES), model)


def _groups(facts: Sequence[LatencyFact]) -> list[list[LatencyFact]]:
    """Facts of one device and host, which are timed in one interleaved run."""
    found: dict[tuple[object, ...], list[LatencyFact]] = {}
    for fact in facts:
        device = fact.device
        key = (device.name, device.runtime, device.provider, device.threads, device.batch)
        found.setdefault((*key, fact.host), []).append(fact)
    return list(found.values())


def _time_here(
    folder: Path, group: Sequence[LatencyFact], settings: CheckSettings, progress: Progress
) -> Timings:
    with tempfile.TemporaryDirectory() as temporary:
        return time_models(
            {_id(fact): inside(folder, fact.model) for fact in group},
            group[0].device,
            Path(temporary),
            settings.profile,
            seed=settings.seed,
            progress=progress,
        )


def _id(fact: LatencyFact) -> str:
    return fact.model.replace("/", ".")


def _pace(fact: LatencyFact, group: Sequence[LatencyFact], timings: Timings) -> float | None:
    """Time of the other models now / then; None if there are no other models."""
    ratios = [
        timings.models[_id(other)].median_ms / other.measured_ms
        for other in group
        if other is not fact and other.measured_ms
    ]
    return median(ratios) if ratios else None


def _limits(manifest: Manifest, fact: LatencyFact) -> dict[Metric, float | None]:
    """Limits of the search for the winning model; other models have none."""
    return {
        c.metric: c.max
        for c in manifest.constraints
        if c.device == fact.device.name and fact.forecast_ms
    }


def _row(manifest: Manifest, fact: LatencyFact) -> dict[str, Any]:
    return {
        "model": fact.model,
        "device": fact.device.name,
        "forecast_ms": fact.forecast_ms,
        "measured_ms": fact.measured_ms,
        "here_ms": None,
        "pace": None,
        "at_pace_1_ms": None,
        "limit_ms": _limits(manifest, fact).get("latency_ms"),
        "holds": None,
    }


def _judge(
    report: LatencyReport,
    manifest: Manifest,
    fact: LatencyFact,
    judged: Judgement,
    verify: VerifyConfig,
    repeat_noise: float,
) -> None:
    """Adds one model to the report."""
    adjusted_ms, most = judged.median_ms, verify.max_forecast_error
    promised = [fact.interval_ms[1]] if fact.interval_ms else []
    promised += [fact.measured_ms * (1 + most)] if fact.measured_ms else []
    widening = (
        fact.interval_ms[1] / fact.forecast_ms if fact.interval_ms and fact.forecast_ms else 1
    )
    found = [
        (limit.excess, str(limit))
        for limit in timed_limits(judged.measured_ms, _limits(manifest, fact), widening=widening)
    ]
    if promised:
        text = f"latency {adjusted_ms:.4f} ms exceeds the promise of at most {max(promised):.4f} ms"
        found = [(adjusted_ms / max(promised) - 1, text), *found]
    noise = verify.repeat_noise_factor * repeat_noise
    states = [verdict(excess, judged.pace, noise=noise, most=most) for excess, _ in found]
    problems = [text for excess, text in found if excess > 0]
    holds = worst(states) if can_judge(judged.pace) else None
    name = f"{fact.model} on {fact.device.name}"
    if judged.pace is None:
        report.notes.append(
            f"{name}: no other model was timed beside it, so the machine's pace is unknown"
        )
    if holds is None:
        why = noise_text(repeat_noise)
        if judged.pace is not None and not can_judge(judged.pace):
            why = f"according to the other models, {pace_text(judged.pace)}"
        report.not_judged.append(f"{name}: {why}")
    if holds is False:
        report.failed.append(f"{name}: {'; '.join(problems)}")
    timed = {"here_ms": judged.timed_ms, "pace": judged.pace, "at_pace_1_ms": adjusted_ms}
    report.rows.append(_row(manifest, fact) | timed | {"holds": holds})
