"""The report section on the comparison of the winner with its baselines (`verdict.html.j2`)."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Belief", "GainRow"]


@dataclass(frozen=True)
class GainRow:
    """Gain of the winner over another network: top-1 and its 95 % interval, as fractions."""

    over: str
    state: str
    gain: float
    low: float
    high: float
    needed: str


@dataclass(frozen=True)
class Belief:
    """Whether the winner is better than its baselines: one sentence, and a row per baseline."""

    sentence: str
    rows: tuple[GainRow, ...]
