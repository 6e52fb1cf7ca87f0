"""The report section on a search for several devices (`devices.html.j2`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Winners"]


@dataclass(frozen=True)
class Winners:
    """The winners of several devices side by side.

    devices: device of each winner; all other fields have this order. forecast_ms[d][w],
    measured_ms[d][w]: latency of winner w on device d; measured_ms is empty before stage `verify`.
    macs, score: of each winner. notes: sentences on winners that are equal, or better on another
    device. differences: choices in which the winners differ, with the value of each ("-" if
    inactive).
    """

    devices: tuple[str, ...]
    forecast_ms: tuple[tuple[float, ...], ...]
    macs: tuple[int, ...]
    score: tuple[float, ...]
    differences: Mapping[str, tuple[str, ...]]
    measured_ms: tuple[tuple[float, ...], ...] = ()
    notes: tuple[str, ...] = ()
