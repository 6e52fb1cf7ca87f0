"""One policy for drifting and noisy machines: timings are judged at the table's speed.

The pace is the time that the machine takes now, relative to when the table was measured. Timings
are divided by it. This is right for small changes. A machine that is off by more than a quarter
throttles, is shared, or is another one, and networks may slow down by different factors: then
nothing can be judged. A timing is known to some multiple of its repeat noise: a bound that is
exceeded by less, and noise above the accepted error, cannot be judged either.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from hwnas.interfaces import Metric
from hwnas.latency.samples import Timing

__all__ = ["Judgement", "can_judge", "judge", "noise_text", "pace_text", "verdict", "worst"]

SLOWEST, FASTEST = 1.25, 0.8
"""Paces between which a timing can be judged."""


@dataclass(frozen=True)
class Judgement:
    """Timing and estimate of a network, in ms at the table's speed.

    measured_ms: median and 95th percentile over runs. estimate_ms: of the median; None if there
    is none. pace: None if it is unknown, and taken to be 1.
    """

    measured_ms: dict[Metric, float]
    estimate_ms: float | None
    pace: float | None

    @property
    def median_ms(self) -> float:
        """Median over runs."""
        return self.measured_ms["latency_ms"]

    @property
    def p95_ms(self) -> float:
        """95th percentile over runs."""
        return self.measured_ms["latency_p95_ms"]

    @property
    def error(self) -> float | None:
        """Relative error of the estimate, signed."""
        return None if self.estimate_ms is None else self.estimate_ms / self.median_ms - 1


def judge(measured: Timing, estimate_ms: float | None, pace: float | None) -> Judgement:
    """A timing and its estimate [ms] at the table's speed; `pace` is None if it is unknown."""
    factor = 1.0 if pace is None else pace
    found: dict[Metric, float] = {
        "latency_ms": measured.median_ms / factor,
        "latency_p95_ms": measured.p95_ms / factor,
    }
    return Judgement(found, estimate_ms, pace)


def can_judge(pace: float | None) -> bool:
    """Whether the machine is close enough to the table's speed; an unknown pace counts as 1."""
    return pace is None or FASTEST <= pace <= SLOWEST


def verdict(
    excess: float, pace: float | None, *, noise: float = 0.0, most: float = math.inf
) -> bool | None:
    """Whether a timing keeps within its bound; None: that cannot be judged.

    excess: how far it is above the bound, as a fraction; up to 0 is within. pace: see `Judgement`.
    noise: how far a timing of the same network may be off, as a fraction. most: noise up to which
    timings within the bound count; above it they have to be within by more than the noise.
    """
    if not can_judge(pace):
        return None
    if excess > noise:
        return False
    return True if excess <= (0 if noise <= most else -noise) else None


def worst(states: Iterable[bool | None]) -> bool | None:
    """The state of checks together: one that fails decides, then one that cannot be judged."""
    found = set(states)
    return False if False in found else None if None in found else True


def noise_text(repeat_noise: float) -> str:
    """Why noise leaves a check open, and what to do."""
    return f"not judged: this machine's repeat noise is {repeat_noise:.1%}, run again when quiet"


def pace_text(pace: float) -> str:
    """The pace in words, and what it means for judging."""
    text = f"the machine takes {pace:.2f} times as long as when the table was measured"
    return text if can_judge(pace) else f"{text}, too far from it to judge"
