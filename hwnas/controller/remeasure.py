"""Re-measurement: times the best archs of a search on the device, then searches again.

A search exploits estimation errors (winner's curse), so the archs that it selects are slower than
estimated. Therefore the best k are timed as whole networks, and the timings correct the estimates:

1. The correction of the table is fitted again. 2. All estimates are multiplied by the median of
measured / refitted estimate of the timed archs, because these are the archs that the search
selects. 3. The estimate of a timed arch is its own timing.

The search runs again with the corrected estimates, until its winner was timed within its limits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, ClassVar

import numpy as np

from hwnas.controller.constraints import Unreachable, n_needed
from hwnas.controller.result import Candidate, SearchResult
from hwnas.core.metrics import MetricKey
from hwnas.core.records import STRICT, Count, Milliseconds
from hwnas.interfaces import CostMetric, FloatArray, Metric
from hwnas.latency.estimator import TableEstimator
from hwnas.latency.table import LatencyTable
from hwnas.latency.validation import refit_correction
from hwnas.spaces.arch import Arch
from hwnas.spaces.space import Codes, SearchSpace

__all__ = ["Measure", "Measured", "Remeasured", "Remeasurement", "Search", "remeasure"]

Measured = Mapping[Metric, FloatArray]
"""Maps `latency_ms` and `latency_p95_ms` to the latencies [n] of n archs."""

Measure = Callable[[str, Codes, int], Measured]
"""Times archs. Arguments: name of the device, codes of the archs, number of the round.

The times are converted to the speed at which the table was measured.
"""

Search = Callable[[Mapping[str, CostMetric], int], SearchResult]
"""Runs the search of a round. Arguments: latency estimates by metric key, number of the round.

The estimates are those of the devices that have a latency limit.
"""


@dataclass(frozen=True)
class Remeasured:
    """One timed arch: the round, the estimate before this round, and the limits in ms.

    `forecast_ms` is the estimated median. A limit is None if the search did not have it.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    round: Count
    device: str
    arch: Arch
    forecast_ms: Milliseconds
    measured_ms: Milliseconds
    limit_ms: Milliseconds | None
    measured_p95_ms: Milliseconds | None = None
    limit_p95_ms: Milliseconds | None = None

    @property
    def worst_ratio(self) -> float:
        """The largest measured / limit; the arch meets its limits if it is <= 1."""
        pairs = (
            (self.measured_ms, self.limit_ms),
            (self.measured_p95_ms, self.limit_p95_ms),
        )
        return max((ms / limit for ms, limit in pairs if ms and limit), default=0.0)

    def __str__(self) -> str:
        """The latency that exceeds its limit most."""
        median = self.limit_ms is not None and self.measured_ms / self.limit_ms == self.worst_ratio
        ms = self.measured_ms if median else self.measured_p95_ms
        name = "latency" if median else "p95 latency"
        return f"{name} {ms:.4g} ms on {self.device}, {self.worst_ratio - 1:.1%} over its limit"


@dataclass(frozen=True)
class Remeasurement:
    """Outcome of the re-measurement. `met`: the winner was timed, and meets every limit.

    `reason`: a sentence on why the winner does not meet a limit, or on the round that found it.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    met: bool
    reason: str
    n_rounds: Count
    retimed: tuple[Remeasured, ...]


def remeasure(
    space: SearchSpace,
    tables: Mapping[str, LatencyTable],
    search: Search,
    measure: Measure,
    *,
    n_archs: int,
    max_rounds: int,
    share: float = 1.0,
) -> tuple[SearchResult, Remeasurement]:
    """Alternates between a search and timing its best `n_archs`, at most `max_rounds` times.

    tables: tables of the devices that have a latency limit.
    share: share of these devices on which the limits must be met.

    The winner of the result is the best arch that was timed within all limits. If there is none,
    the winner of the last search is used.

    Raises:
        Unreachable: no arch meets the constraints in the first search.
    """
    devices = {name: _Device(space, table) for name, table in tables.items()}
    seen: dict[Arch, Candidate] = {}
    obstacle, needed = "", n_needed(share, len(devices))

    def meets(arch: Arch) -> bool:
        return sum(device.meets(arch) for device in devices.values()) >= needed

    for number in range(max_rounds):
        metrics = {key: m for device in devices.values() for key, m in device.metrics().items()}
        try:
            result = search(metrics, number)
        except Unreachable as error:
            if number == 0:
                raise
            obstacle = f"with estimates corrected by timings, {str(error).splitlines()[0]}; "
            break
        n_rounds = number + 1
        seen |= {candidate.arch: candidate for candidate in result.top}
        for device in devices.values():
            device.measure(result, n_archs, measure, number)
        if meets(result.winner.arch):
            reason = f"the winner's measured latency meets its limits, in round {n_rounds}"
            return result, Remeasurement(True, reason, n_rounds, _rows(devices))
    kept = [candidate for candidate in seen.values() if meets(candidate.arch)]
    if kept:
        winner = max(kept, key=lambda candidate: candidate.score)
        reason = (
            f"after {n_rounds} rounds, the measured latency of the best arch still exceeds its"
            " limit; the winner is the best arch whose measured latency does not"
        )
        top = (winner, *(c for c in result.top if c.arch != winner.arch))
        chosen = replace(result, winner=winner, top=top)
        return chosen, Remeasurement(True, reason, n_rounds, _rows(devices))
    rows = _rows(devices)
    reason = (
        f"{obstacle}no timed arch meets its limits ({len(rows)} timings): {_closest(rows, needed)}"
    )
    return result, Remeasurement(False, reason, n_rounds, rows)


class _Device:
    """One device: its table, its measurements, and the resulting estimates."""

    def __init__(self, space: SearchSpace, table: LatencyTable) -> None:
        self._space, self._table = space, table
        self._name = table.device.name
        self._timed: dict[Arch, Remeasured] = {}

    def metrics(self) -> dict[str, CostMetric]:
        """Corrected estimates of both latencies, by metric key."""
        estimator = TableEstimator(self._taught(), self._space)
        timed = list(self._timed.values())
        medians = [row.measured_ms for row in timed]
        tails = [row.measured_p95_ms or np.nan for row in timed]
        return {
            MetricKey("latency_ms", self._name): self._corrected(estimator.latency_ms, medians),
            MetricKey("latency_p95_ms", self._name): self._corrected(
                estimator.latency_p95_ms, tails
            ),
        }

    def measure(self, result: SearchResult, n: int, measure: Measure, number: int) -> None:
        """Times the best n archs of a search, except those timed before."""
        archs = [c.arch for c in result.top[:n] if c.arch not in self._timed]
        if not archs:
            return
        codes = self._space.codes(archs)
        estimates = self.metrics()[MetricKey("latency_ms", self._name)](codes)
        measured = measure(self._name, codes, number)
        for position, arch in enumerate(archs):
            self._timed[arch] = Remeasured(
                round=number,
                device=self._name,
                arch=arch,
                forecast_ms=float(estimates[position]),
                measured_ms=float(measured["latency_ms"][position]),
                limit_ms=result.given_limit("latency_ms", self._name),
                measured_p95_ms=float(measured["latency_p95_ms"][position]),
                limit_p95_ms=result.given_limit("latency_p95_ms", self._name),
            )

    def meets(self, arch: Arch) -> bool:
        """Whether the arch was timed within the limits."""
        return arch in self._timed and self._timed[arch].worst_ratio <= 1

    def rows(self) -> Iterator[Remeasured]:
        """All timed archs, in order."""
        yield from self._timed.values()

    def _taught(self) -> LatencyTable:
        """The table with a refitted correction; a table without a correction is unchanged."""
        space, table = self._space, self._table
        if space.id not in table.corrections or not self._timed:
            return table
        codes = space.codes(list(self._timed))
        latencies = np.array([row.measured_ms for row in self._timed.values()])
        correction = table.corrections[space.id]
        refitted = refit_correction(correction, table.rows, space, codes, latencies)
        return replace(table, corrections={**table.corrections, space.id: refitted})

    def _corrected(self, estimate: CostMetric, measured: list[float]) -> CostMetric:
        """Estimates scaled to the timed archs; timed archs have their measured latency."""
        if not measured:
            return estimate
        space = self._space
        timed = space.codes(list(self._timed))
        known = dict(zip(space.keys(timed), measured, strict=True))

        @cache
        def factor() -> float:  # later: a table may lack percentiles
            return float(np.median(np.array(measured) / estimate(timed)))

        def corrected(codes: Codes) -> FloatArray:
            found = factor() * estimate(codes)
            for row, key in enumerate(space.keys(codes)):
                if key in known:
                    found[row] = known[key]
            return found

        return corrected


def _rows(devices: Mapping[str, _Device]) -> tuple[Remeasured, ...]:
    rows = [row for device in devices.values() for row in device.rows()]
    return tuple(sorted(rows, key=lambda row: row.round))


def _closest(rows: tuple[Remeasured, ...], needed: int) -> str:
    """Says which limit the arch exceeds that is nearest to meeting those of `needed` devices."""
    if not rows:
        return "nothing was timed"
    by_arch: dict[Arch, list[Remeasured]] = {}
    for row in rows:
        by_arch.setdefault(row.arch, []).append(row)
    decisive = [
        sorted(found, key=lambda row: row.worst_ratio)[needed - 1]
        for found in by_arch.values()  # all devices time the same archs
    ]
    return f"the nearest one has {min(decisive, key=lambda row: row.worst_ratio)}"
