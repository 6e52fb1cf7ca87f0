"""One policy for drifting and noisy machines: timings are judged at the speed of the table.

The pace is the time that the machine takes now / when the table was measured. Timings are divided
by the pace. This is valid for small changes. If the pace is off by more than a quarter, the machine
throttles, is shared, or is another machine, and different networks may slow down by different
factors. Then checks have no result.

The uncertainty of a timing is a multiple of its repeat noise. A check has no result either if the
timing exceeds its limit by less than this uncertainty. The same holds for a timing that is below
its limit by less than the uncertainty, if the uncertainty exceeds the accepted error.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from hwnas.core.stats import Z90
from hwnas.interfaces import FloatArray, Metric
from hwnas.latency.samples import Timing

__all__ = [
    "Judgement",
    "can_judge",
    "judge",
    "noise_text",
    "pace_text",
    "verdict",
    "widened",
    "worst",
]

SLOWEST, FASTEST = 1.25, 0.8
"""Range of paces in which a timing can be judged."""


@dataclass(frozen=True)
class Judgement:
    """Timing and estimate of a network, in ms at the speed of the table.

    measured_ms: median and 95th percentile over runs.
    estimate_ms: estimate of the median; None if there is none.
    pace: None if unknown, which counts as 1.
    """

    measured_ms: dict[Metric, float]
    estimate_ms: float | None
    pace: float | None

    @property
    def median_ms(self) -> float:
        """Median over runs in ms."""
        return self.measured_ms["latency_ms"]

    @property
    def timed_ms(self) -> float:
        """Median over runs in ms at the current speed of the machine."""
        return self.median_ms * (1.0 if self.pace is None else self.pace)

    @property
    def p95_ms(self) -> float:
        """95th percentile over runs in ms."""
        return self.measured_ms["latency_p95_ms"]

    @property
    def error(self) -> float | None:
        """Relative error of the estimate, signed."""
        return None if self.estimate_ms is None else self.estimate_ms / self.median_ms - 1


def judge(measured: Timing, estimate_ms: float | None, pace: float | None) -> Judgement:
    """Converts a timing and its estimate [ms] to the speed of the table; `pace` None: unknown."""
    factor = 1.0 if pace is None else pace
    found: dict[Metric, float] = {
        "latency_ms": measured.median_ms / factor,
        "latency_p95_ms": measured.p95_ms / factor,
    }
    return Judgement(found, estimate_ms, pace)


def can_judge(pace: float | None) -> bool:
    """Whether the pace is close enough to 1; an unknown pace counts as 1."""
    return pace is None or FASTEST <= pace <= SLOWEST


def verdict(
    excess: float, pace: float | None, *, noise: float = 0.0, most: float = math.inf
) -> bool | None:
    """Whether a timing is within its limit; None if this cannot be judged.

    excess: relative excess over the limit; values up to 0 are within the limit.
    pace: see `Judgement`.
    noise: relative uncertainty of a timing of the same network.
    most: largest noise at which every timing within the limit passes. With more noise, a timing
        passes if it is below the limit by at least the noise.
    """
    if not can_judge(pace):
        return None
    if excess > noise:
        return False
    return True if excess <= (0 if noise <= most else -noise) else None


def widened(estimate_ms: FloatArray, interval_ms: FloatArray, pace_spread: float) -> FloatArray:
    """Widens the 90 % intervals [n, 2] of estimates [n] by the error of the pace, in ms: [n, 2].

    Load slows some networks down more than others, so timings that are divided by the pace have an
    error. Its standard deviation is about `pace_spread`: the mean relative distance from the pace,
    over networks of the table that were timed again. Its 90 % interval and the interval of the
    estimate add up in quadrature.
    """
    spread = estimate_ms * Z90 * pace_spread
    low = estimate_ms - np.hypot(estimate_ms - interval_ms[:, 0], spread)
    high = estimate_ms + np.hypot(interval_ms[:, 1] - estimate_ms, spread)
    return np.stack([np.maximum(low, 0.0), high], axis=1)


def worst(states: Iterable[bool | None]) -> bool | None:
    """Combines states of checks: False if one failed, else None if one has no result, else True."""
    found = set(states)
    return False if False in found else None if None in found else True


def noise_text(repeat_noise: float) -> str:
    """Explains why noise leaves a check without a result, and what to do."""
    return (
        f"not judged: this machine's repeat noise is {repeat_noise:.1%}; run again when it is idle"
    )


def pace_text(pace: float) -> str:
    """The pace in words, and its effect on the checks."""
    text = f"the machine takes {pace:.2f} times as long as when the table was measured"
    return text if can_judge(pace) else f"{text}: too large a difference to judge timings"
