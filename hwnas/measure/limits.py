"""Compares measured latencies with the limits of a search."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from hwnas.core.config import StrictModel
from hwnas.interfaces import Metric
from hwnas.latency.sections import ProfileConfig

__all__ = ["CheckSettings", "TimedLimit", "VerifyConfig", "timed_limits"]


class VerifyConfig(StrictModel):
    """The tolerances of the checks on the device."""

    max_forecast_error: Annotated[
        float,
        Field(
            gt=0,
            le=1,
            description="Largest relative error of the winner's latency estimate that passes; 0.05:"
            " 5 %.",
        ),
    ] = 0.05
    repeat_noise_factor: Annotated[
        float,
        Field(
            ge=0,
            description="Uncertainty of a timing, as a multiple of the repeat noise of the device;"
            " a check fails only if the value exceeds its bound by more than this uncertainty.",
        ),
    ] = 2.0
    parity_batches: Annotated[
        tuple[Annotated[int, Field(ge=1, le=4096)], ...],
        Field(
            min_length=1,
            description="Batch sizes at which outputs of exported files are compared with torch.",
        ),
    ] = (1, 2, 8)


@dataclass(frozen=True)
class CheckSettings:
    """How a bundle is timed, and the tolerances."""

    profile: ProfileConfig
    verify: VerifyConfig
    seed: int


TIMED: tuple[Metric, ...] = ("latency_ms", "latency_p95_ms")


@dataclass(frozen=True)
class TimedLimit:
    """A measured latency of a network and its limit.

    `excess`: relative excess over the widened limit; negative: below the limit.
    """

    metric: Metric
    ms: float
    limit_ms: float
    excess: float

    @property
    def held(self) -> bool:
        """Whether the latency is within the widened limit."""
        return self.excess <= 0

    def __str__(self) -> str:
        name = "p95 latency" if self.metric == "latency_p95_ms" else "latency"
        relation = "is within" if self.ms <= self.limit_ms else "exceeds"
        text = f"{name} {self.ms:.4f} ms {relation} the limit of {self.limit_ms:.4f} ms"
        by_estimate = self.held and self.ms > self.limit_ms
        if not by_estimate:
            return text
        most = self.ms / (1 + self.excess)
        return f"{text}, but passes: the interval of its estimate allows {most:.4f} ms"


def timed_limits(
    measured_ms: Mapping[Metric, float | None],
    limits_ms: Mapping[Metric, float | None],
    *,
    widening: float,
) -> tuple[TimedLimit, ...]:
    """Compares the latencies with their limits; metrics without a timing or limit are left out.

    widening: factor by which limits are multiplied before the comparison.
    """
    return tuple(
        TimedLimit(metric, ms, limit, ms / (limit * widening) - 1)
        for metric in TIMED
        if (ms := measured_ms.get(metric)) is not None
        and (limit := limits_ms.get(metric)) is not None
    )
