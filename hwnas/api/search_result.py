"""The results of searches with a custom score: for one device, and for each of many."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from hwnas.api.result import Point
from hwnas.controller.groups import DeviceGroup, device_groups
from hwnas.controller.result import Candidate, SearchResult
from hwnas.core.html_table import html_table
from hwnas.core.records import dump
from hwnas.spaces.space import SearchSpace

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["Found", "FoundPerDevice", "found_of", "point_of"]


@dataclass(frozen=True)
class Found:
    """Result of a search with a custom score.

    top: the best archs within the limits, the winner first.
    fronts: maps each metric key to the front of this cost and the score, cheapest arch first.
    limits: maps each limited metric key to the maximum cost.
    n_scored: number of scored archs.
    """

    winner: Point
    top: tuple[Point, ...]
    fronts: Mapping[str, tuple[Point, ...]]
    limits: Mapping[str, float]
    n_scored: int

    def __str__(self) -> str:
        return f"winner of {self.n_scored} scored archs: {self.winner}"

    def _repr_html_(self) -> str:
        rows = [
            {"arch": point.arch.key, "score": point.score, **point.costs}
            for point in (self.winner, *(one for one in self.front if one != self.winner))
        ]
        return html_table(rows, title=f"winner of {self.n_scored:,} scored archs, and its front")

    @property
    def front(self) -> tuple[Point, ...]:
        """The entry of `fronts` for the first limit; without limits, for the first metric."""
        return self.fronts[self._first]

    @property
    def _first(self) -> str:
        return next(key for key in (*self.limits, *self.fronts) if key in self.fronts)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return dump(self, versioned=False)

    def plot_front(self) -> go.Figure:
        """Cost and score of the front, with the winner and the limit."""
        from hwnas.reporting.data import Front
        from hwnas.reporting.data import Point as Mark
        from hwnas.reporting.figures import front_figure

        key = self._first
        marks = [Mark(p.costs[key], p.score, p.arch.key) for p in (self.winner, *self.front)]
        figure = front_figure(
            Front(key, "score", (), tuple(marks[1:]), marks[0], self.limits.get(key))
        )
        figure.update_yaxes(tickformat="")
        return figure.update_xaxes(title={"text": key})


@dataclass(frozen=True)
class FoundPerDevice:
    """Result of a search for many devices.

    winners: maps each device to its winner, with its costs on all devices (`Point.latency_ms`).
    limits: maps each device to its limits by metric key.
    skipped: maps each table or device that was skipped to the reason.
    n_scored: number of scored archs.
    """

    winners: Mapping[str, Point]
    limits: Mapping[str, Mapping[str, float]]
    skipped: Mapping[str, str]
    n_scored: int

    def groups(self, tolerance: float = 0.0) -> tuple[DeviceGroup, ...]:
        """Divides the devices into few groups, so that one network serves all devices of a group.

        The network of a group is the winner of its first device. It meets the limits of each of
        its devices, and its score is at most `tolerance` below that of the device's own winner.
        """
        known = {device: _candidate(winner) for device, winner in self.winners.items()}
        return device_groups(known, self.limits, tolerance=tolerance)

    def __str__(self) -> str:
        found = [
            f"{device}: {point.arch.key}, score {point.score:.4g}, "
            f"{point.latency_ms[device]:.4g} ms"
            for device, point in self.winners.items()
        ]
        skipped = [f"{name}: skipped: {reason}" for name, reason in self.skipped.items()]
        return "\n".join([*found, *skipped, *map(str, self.groups())])

    def _repr_html_(self) -> str:
        rows = [
            {
                "device": device,
                "arch": point.arch.key,
                "score": point.score,
                "latency_ms": point.latency_ms[device],
            }
            for device, point in self.winners.items()
        ]
        return html_table(rows, title=f"winners of {self.n_scored:,} scored archs")

    def to_dict(self) -> dict[str, Any]:
        """JSON values, with the groups for a tolerance of 0."""
        return dump(self, versioned=False) | {"groups": [g.summary() for g in self.groups()]}


def found_of(space: SearchSpace, result: SearchResult) -> Found:
    """The result of a search for users."""
    point = partial(point_of, space)
    return Found(
        winner=point(result.winner),
        top=tuple(map(point, result.top)),
        fronts={key: tuple(map(point, front)) for key, front in result.fronts.items()},
        limits=result.limits,
        n_scored=result.n_predictions,
    )


def point_of(space: SearchSpace, candidate: Candidate) -> Point:
    """An arch of a search for users."""
    arch = candidate.arch
    return Point(arch, space.view(arch), candidate.score, None, candidate.costs)


def _candidate(point: Point) -> Candidate:
    """The arch as `device_groups` compares it: its score has no error."""
    return Candidate(point.arch, point.score, point.score, 0.0, None, True, dict(point.costs))
