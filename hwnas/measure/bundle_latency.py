"""A bundle's latency on this host: forecast, measured when exported, here, and the limit."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hwnas.core.env import host_facts
from hwnas.core.progress import Progress
from hwnas.exporters.manifest import LatencyFact, Manifest
from hwnas.interfaces import Metric
from hwnas.measure.limits import CheckSettings, timed_limits
from hwnas.measure.profile import Timings, time_models

__all__ = ["check_latency"]


def check_latency(
    folder: Path,
    manifest: Manifest,
    settings: CheckSettings,
    notes: list[str],
    progress: Progress,
) -> tuple[list[dict[str, Any]], list[str]]:
    """A row per timed model, and what falls short; only the machine that was promised is timed.

    A model may take what was measured and the accepted error of a forecast, or the upper end of the
    forecast's interval; the limit of the search is widened by that interval, as in stage `verify`.
    """
    here = host_facts()["cpu"]
    rows, failed = [], []
    for group in _groups(manifest.latency):
        first = group[0]
        can_run = first.device.transport == "local" and first.device.runtime == "onnxruntime"
        timings = None
        if can_run and first.host == here:
            timings = _time_here(folder, group, settings, progress)
        else:
            notes.append(
                f"latency on {first.device.name} ({first.host}) not re-timed on {here}: run"
                " `python ort_run.py --check .` there"
            )
        for fact in group:
            row, problem = _latency_row(manifest, fact, timings, settings)
            rows.append(row)
            failed += [problem] if problem else []
    return rows, failed


def _groups(facts: Sequence[LatencyFact]) -> list[list[LatencyFact]]:
    """Facts of one device and host, timed in one interleaved run."""
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
            {_id(fact): folder / fact.model for fact in group},
            group[0].device,
            Path(temporary),
            settings.profile,
            seed=settings.seed,
            progress=progress,
        )


def _id(fact: LatencyFact) -> str:
    return fact.model.replace("/", ".")


def _latency_row(
    manifest: Manifest, fact: LatencyFact, timings: Timings | None, settings: CheckSettings
) -> tuple[dict[str, Any], str]:
    limits: dict[Metric, float | None] = {
        c.metric: c.max
        for c in manifest.constraints
        if c.device == fact.device.name and fact.forecast_ms
    }
    row: dict[str, Any] = {
        "model": fact.model,
        "device": fact.device.name,
        "forecast_ms": fact.forecast_ms,
        "measured_ms": fact.measured_ms,
        "here_ms": None,
        "limit_ms": limits.get("latency_ms"),
        "holds": None,
    }
    if timings is None:
        return row, ""
    timing = timings.models[_id(fact)]
    here_ms = timing.median_ms
    verify = settings.verify
    slack = 1 + max(verify.max_forecast_error, verify.repeat_noise_factor * timings.repeat_mape)
    promised = [fact.interval_ms[1]] if fact.interval_ms else []
    promised += [fact.measured_ms * slack] if fact.measured_ms else []
    widening = (
        fact.interval_ms[1] / fact.forecast_ms if fact.interval_ms and fact.forecast_ms else 1
    )
    problems = []
    if promised and here_ms > max(promised):
        problems.append(f"{here_ms:.4f} ms here, promised at most {max(promised):.4f} ms")
    here: dict[Metric, float | None] = {"latency_ms": here_ms, "latency_p95_ms": timing.p95_ms}
    for limit in timed_limits(here, limits, widening=widening):
        if not limit.held:
            what = "" if limit.metric == "latency_ms" else "in one run of twenty "
            problems.append(f"{what}{limit.ms:.4f} ms here, limit {limit.limit_ms:.4f} ms")
    row |= {"here_ms": here_ms, "holds": not problems}
    text = f"{fact.model} on {fact.device.name}: {'; '.join(problems)}" if problems else ""
    return row, text
