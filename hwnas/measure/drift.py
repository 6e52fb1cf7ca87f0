"""One policy for machines whose speed changes: timings are judged at the speed of the table.

The pace is the time that the machine takes now, relative to when the table was measured. Timings
are divided by it. This is right for small changes. A machine that is off by more than a quarter
throttles, is shared, or is another one, and networks may slow down by different factors: then
nothing can be judged.
"""

from __future__ import annotations

from dataclasses import dataclass

from hwnas.interfaces import Metric
from hwnas.latency.samples import Timing

__all__ = ["Judgement", "can_judge", "judge", "pace_text", "verdict"]

SLOWEST, FASTEST = 1.25, 0.8
"""Paces between which a timing can be judged."""


@dataclass(frozen=True)
class Judgement:
    """Timing and estimate of a network, in ms at the table's speed.

    measured_ms: median and 95th percentile over runs. estimate_ms: of the median; None where there
    is none. pace: None where it is unknown, and taken to be 1.
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

    def verdict(self, holds: bool) -> bool | None:
        """The state of a check that `holds` by these values; None: it cannot be judged."""
        return verdict(holds, self.pace)


def judge(measured: Timing, estimate_ms: float | None, pace: float | None) -> Judgement:
    """A timing and its estimate [ms] at the table's speed; `pace` is None where it is unknown."""
    factor = 1.0 if pace is None else pace
    found: dict[Metric, float] = {
        "latency_ms": measured.median_ms / factor,
        "latency_p95_ms": measured.p95_ms / factor,
    }
    return Judgement(found, estimate_ms, pace)


def can_judge(pace: float | None) -> bool:
    """Whether the machine is close enough to the table's speed; an unknown pace counts as 1."""
    return pace is None or FASTEST <= pace <= SLOWEST


def verdict(holds: bool, pace: float | None) -> bool | None:
    """The state of a check that `holds` at this pace; None: it cannot be judged."""
    return holds if can_judge(pace) else None


def pace_text(pace: float) -> str:
    """The pace in words, and what it means for judging."""
    text = f"the machine takes {pace:.2f} times as long as when the table was measured"
    return text if can_judge(pace) else f"{text}, too far from it to judge"
