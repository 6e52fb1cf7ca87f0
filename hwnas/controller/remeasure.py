"""Closing on the device: the best archs are re-timed, and the search goes on from what they teach.

A forecast is right on average; the archs that a search picks are those whose forecasts flatter
them. So the best k are timed as whole networks on the real device, their timings refit the table's
correction (what it still misses of them, in the median, scales all forecasts: they are the archs in
question), what was timed keeps its own timing, and the search runs again, until its winner is an
arch whose measured latency meets the limit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from hwnas.controller.constraints import Unreachable
from hwnas.controller.result import Candidate, SearchResult
from hwnas.core.records import STRICT
from hwnas.interfaces import CostMetric, FloatArray
from hwnas.latency.estimator import TableEstimator
from hwnas.latency.table import LatencyTable
from hwnas.latency.validation import refit_correction
from hwnas.spaces.arch import Arch
from hwnas.spaces.space import Codes, SearchSpace

__all__ = ["Closing", "Retimed", "close_on_devices"]

Retime = Callable[[str, Codes, int], FloatArray]
"""Measured ms [n] of archs on a device, in a round; at the speed the table was measured at."""

Search = Callable[[Mapping[str, CostMetric], int], SearchResult]
"""The search of a round, with latencies of every device by name."""


@dataclass(frozen=True)
class Retimed:
    """One arch that was timed: in which round, and what had been forecast then."""

    __pydantic_config__: ClassVar[Any] = STRICT

    round: int
    device: str
    arch: Arch
    forecast_ms: float
    measured_ms: float
    limit_ms: float


@dataclass(frozen=True)
class Closing:
    """How a search ended on its devices. `met`: the winner was timed, and within every limit.

    `reason` says in words why not, or how many rounds it took.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    met: bool
    reason: str
    n_rounds: int
    retimed: tuple[Retimed, ...]


def close_on_devices(
    space: SearchSpace,
    tables: Mapping[str, LatencyTable],
    search: Search,
    retime: Retime,
    *,
    n_retimed: int,
    max_rounds: int,
) -> tuple[SearchResult, Closing]:
    """Search and re-time in turns, at most `max_rounds` times; `tables` of the limited devices.

    The result's winner is the best arch found by measurement to meet all limits, if there is one;
    else that of the last search.
    """
    device_tables = dict(tables)
    retimed: list[Retimed] = []
    seen: dict[Arch, Candidate] = {}
    obstacle = ""
    for number in range(max_rounds):
        estimators = {name: TableEstimator(t, space) for name, t in device_tables.items()}
        metrics = {
            name: _corrected(space, estimator, _measured(retimed, name))
            for name, estimator in estimators.items()
        }
        try:
            result = search(metrics, number)
        except Unreachable as error:
            if not retimed:
                raise
            obstacle = f"with what the timings taught, {str(error).splitlines()[0]}; "
            break
        n_rounds = number + 1
        seen |= {candidate.arch: candidate for candidate in result.top}
        limits = {name: result.limits[f"latency_ms@{name}"] for name in tables}
        for name in tables:
            known = _measured(retimed, name)
            archs = [c.arch for c in result.top[:n_retimed] if c.arch not in known]
            if not archs:
                continue
            codes = space.codes(archs)
            forecasts, measured = metrics[name](codes), retime(name, codes, number)
            for arch, forecast, ms in zip(archs, forecasts, measured, strict=True):
                one = Retimed(number, name, arch, float(forecast), float(ms), limits[name])
                retimed.append(one)
            device_tables[name] = _taught(space, tables[name], _measured(retimed, name))
        if _meets(result.winner.arch, retimed, limits):
            reason = f"the winner's measured latency meets its limits, in round {number + 1}"
            return result, Closing(True, reason, n_rounds, tuple(retimed))
    proven = [c for c in seen.values() if _meets(c.arch, retimed, limits)]
    if proven:
        winner = max(proven, key=lambda candidate: candidate.score)
        reason = (
            f"after {n_rounds} rounds the best arch by forecast still missed its limit when"
            " timed; the winner is the best one whose measured latency meets it"
        )
        top = (winner, *(c for c in result.top if c.arch != winner.arch))
        chosen = replace(result, winner=winner, top=top)
        return chosen, Closing(True, reason, n_rounds, tuple(retimed))
    reason = f"{obstacle}none of {len(retimed)} timings met its limit: {_closest(retimed)}"
    return result, Closing(False, reason, n_rounds, tuple(retimed))


def _measured(retimed: list[Retimed], device: str) -> dict[Arch, float]:
    return {one.arch: one.measured_ms for one in retimed if one.device == device}


def _corrected(
    space: SearchSpace, estimator: TableEstimator, measured: dict[Arch, float]
) -> CostMetric:
    """Forecasts times what they still miss of the timed archs; of these, what was measured."""
    if not measured:
        return estimator.latency_ms
    codes = space.codes(list(measured))
    known = dict(zip(space.keys(codes), measured.values(), strict=True))
    missed = np.array(list(measured.values())) / estimator.latency_ms(codes)
    factor = float(np.median(missed))

    def latency_ms(codes: Codes) -> FloatArray:
        found = factor * estimator.latency_ms(codes)
        for row, key in enumerate(space.keys(codes)):
            if key in known:
                found[row] = known[key]
        return found

    return latency_ms


def _taught(space: SearchSpace, table: LatencyTable, measured: dict[Arch, float]) -> LatencyTable:
    """The table with its correction refitted; one without a correction stays as it is."""
    if space.id not in table.corrections:
        return table
    codes, latencies = space.codes(list(measured)), np.array(list(measured.values()))
    refitted = refit_correction(table.corrections[space.id], table.rows, space, codes, latencies)
    return replace(table, corrections={**table.corrections, space.id: refitted})


def _meets(arch: Arch, retimed: list[Retimed], limits: Mapping[str, float]) -> bool:
    return all(
        _measured(retimed, name).get(arch, np.inf) <= limit for name, limit in limits.items()
    )


def _closest(retimed: list[Retimed]) -> str:
    if not retimed:
        return "nothing was timed"
    best = min(retimed, key=lambda one: one.measured_ms / one.limit_ms)
    over = best.measured_ms / best.limit_ms - 1
    return f"the closest took {best.measured_ms:.4g} ms on {best.device}, {over:.1%} too many"
