"""Report section: whether the winner is better than its baselines (`verdict.html.j2`)."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Belief", "GainRow"]


@dataclass(frozen=True)
class GainRow:
    """Gain in top-1 of the winner over another network, with its 95 % interval, as fractions."""

    over: str
    state: str
    gain: float
    low: float
    high: float
    needed: str


@dataclass(frozen=True)
class Belief:
    """The verdict: a sentence, and one row per baseline."""

    sentence: str
    rows: tuple[GainRow, ...]
