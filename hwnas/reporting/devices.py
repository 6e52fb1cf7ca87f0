"""The report section on a search for several devices (`devices.html.j2`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Winners"]


@dataclass(frozen=True)
class Winners:
    """The winners of several devices side by side.

    devices: whose winner, in the order of everything else. forecast_ms[d][w], measured_ms[d][w]:
    winner w on device d; measured_ms is empty before stage `verify`. macs, score: of each winner.
    notes: sentences, which winners coincide, and which are better elsewhere. differences: choices
    in which the winners differ, with the value of each ("-" where inactive).
    """

    devices: tuple[str, ...]
    forecast_ms: tuple[tuple[float, ...], ...]
    macs: tuple[int, ...]
    score: tuple[float, ...]
    differences: Mapping[str, tuple[str, ...]]
    measured_ms: tuple[tuple[float, ...], ...] = ()
    notes: tuple[str, ...] = ()
