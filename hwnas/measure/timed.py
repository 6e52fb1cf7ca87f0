"""Timings of models from one or several sessions, scaled to the same pace."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from hwnas.interfaces import FloatArray
from hwnas.latency.samples import Samples, Timing
from hwnas.latency.table import Fact
from hwnas.measure.drift import can_judge
from hwnas.measure.networks import network_id
from hwnas.spaces.space import Codes, SearchSpace

__all__ = ["Apart", "NetworkTimings", "Timed", "fact_of", "facts_of"]

LEAST_COMMON = 5  # minimum number of models for a pace
Halves = tuple[float, float]
T = TypeVar("T")


class Apart(Exception):
    """Timings of two sessions cannot be compared; the text is the reason."""


@dataclass(frozen=True)
class Timed:
    """Timings by model, scaled to the pace of the first session.

    halves: latency in ms from the even and from the odd rounds.
    sessions: all timings of each session. A model that was timed again is in several sessions.
    pace: pace of the last session, relative to the first one.
    spread: mean relative distance from the pace, over the models that were timed again.
    kept: number of models that earlier sessions timed.
    over_time: pace within each session (`Samples.pace`), one session after the other.
    """

    timings: dict[str, Timing]
    halves: dict[str, Halves]
    header: dict[str, Any]
    n_rounds: int
    warnings: tuple[str, ...]
    sessions: tuple[dict[str, Timing], ...]
    pace: float = 1.0
    spread: float = 0.0
    kept: int = 0
    over_time: tuple[float, ...] = ()

    @staticmethod
    def of(samples: Samples) -> Timed:
        """Timings of one session."""
        timings = samples.timings()
        halves = dict(
            zip(
                samples.ids,
                zip(*map(np.ndarray.tolist, samples.halves()), strict=True),
                strict=True,
            )
        )
        n_rounds = samples.hot.shape[1]
        return Timed(
            timings,
            halves,
            samples.facts,
            n_rounds,
            samples.warnings,
            (timings,),
            over_time=samples.pace(),
        )

    def without(self, names: Set[str]) -> Timed:
        """The timings without some models."""

        def kept(values: Mapping[str, T]) -> dict[str, T]:
            return {name: value for name, value in values.items() if name not in names}

        return replace(
            self,
            timings=kept(self.timings),
            halves=kept(self.halves),
            sessions=tuple(map(kept, self.sessions)),
        )

    def joined(self, later: Timed) -> Timed:
        """Adds a later session, which timed some of these models again.

        Raises:
            Apart: the sessions cannot be compared.
        """
        common = [name for name in later.timings if name in self.timings]
        if len(common) < LEAST_COMMON:
            raise Apart(f"the sessions have only {len(common)} models in common")
        for key in ("cpu", "runtime_version"):
            before, now = fact_of(self.header, key), fact_of(later.header, key)
            if before != now:
                raise Apart(f"{key} was {before}, and is now {now}")
        ratios = [later.timings[m].median_ms / self.timings[m].median_ms for m in common]
        pace = float(np.median(ratios))
        if not can_judge(pace):
            raise Apart(f"the machine takes {pace:.2f} times as long as in the earlier session")
        new = {name: _scaled(timing, 1 / pace) for name, timing in later.timings.items()}
        halves = {name: (a / pace, b / pace) for name, (a, b) in later.halves.items()}
        return replace(
            self,
            timings=new | self.timings,
            halves=halves | self.halves,
            warnings=tuple(dict.fromkeys((*self.warnings, *later.warnings))),
            sessions=(*self.sessions, new),
            pace=pace,
            spread=float(np.abs(np.array(ratios) / pace - 1).mean()),
            kept=len(self.timings),
            over_time=(*self.over_time, *later.over_time),
        )


@dataclass(frozen=True)
class NetworkTimings:
    """Whole networks timed together. `halves`: latencies [n] from the even and the odd rounds."""

    timings: tuple[Timing, ...]
    halves: tuple[FloatArray, FloatArray]
    facts: dict[str, Fact]

    @staticmethod
    def of(timed: Timed, space: SearchSpace, nets: Codes) -> NetworkTimings:
        """Timings of `nets` [n, d], which are models of `timed`."""
        names = [network_id(space, row) for row in nets]
        even, odd = np.array([timed.halves[name] for name in names]).T
        return NetworkTimings(
            tuple(timed.timings[name] for name in names), (even, odd), facts_of(timed)
        )


def facts_of(timed: Timed) -> dict[str, Fact]:
    """Facts on host, runtime, number of samples and sessions, as a flat mapping."""
    header = timed.header
    facts: dict[str, Fact] = {
        **header["host"],
        "runtime": header["runtime"],
        "runtime_version": header["runtime_version"],
        "rounds": timed.n_rounds,
    }
    if len(timed.sessions) > 1:
        facts |= {"sessions": len(timed.sessions), "models_of_earlier_sessions": timed.kept}
        facts |= {"pace": round(timed.pace, 4), "pace_spread": round(timed.spread, 4)}
    return facts


def fact_of(header: Mapping[str, Any], key: str) -> Any:
    """A fact on the host or runtime in the header of a results file."""
    return header["host"][key] if key == "cpu" else header[key]


def _scaled(timing: Timing, factor: float) -> Timing:
    def scaled(ms: float) -> float:
        return float(f"{ms * factor:.6g}")

    return Timing(
        median_ms=scaled(timing.median_ms),
        p10_ms=scaled(timing.p10_ms),
        p90_ms=scaled(timing.p90_ms),
        p95_ms=scaled(timing.p95_ms),
        n=timing.n,
        cold_ms=None if timing.cold_ms is None else scaled(timing.cold_ms),
        energy_mj=timing.energy_mj,
    )
