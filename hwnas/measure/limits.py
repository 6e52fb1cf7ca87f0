"""Latency limits of a search, against what was timed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hwnas.interfaces import Metric

__all__ = ["TimedLimit", "timed_limits"]

TIMED: tuple[Metric, ...] = ("latency_ms", "latency_p95_ms")


@dataclass(frozen=True)
class TimedLimit:
    """What was timed of a network and its limit; `held` allows for the widening of the limit."""

    metric: Metric
    ms: float
    limit_ms: float
    held: bool


def timed_limits(
    measured_ms: Mapping[Metric, float | None],
    limits_ms: Mapping[Metric, float | None],
    *,
    widening: float,
) -> tuple[TimedLimit, ...]:
    """Every limit that was timed; each is widened by the forecast's interval, a factor."""
    return tuple(
        TimedLimit(metric, ms, limit, ms <= limit * widening)
        for metric in TIMED
        if (ms := measured_ms.get(metric)) is not None
        and (limit := limits_ms.get(metric)) is not None
    )
