"""What a search found, as records."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from hwnas.controller.archive import Archive, Rows
from hwnas.controller.constraints import Costs
from hwnas.core.records import STRICT
from hwnas.spaces.arch import Arch

__all__ = ["Candidate", "SearchResult", "candidates"]


@dataclass(frozen=True)
class Candidate:
    """One arch of an archive. `score` is the blend where `supernet` is known, else `predicted`.

    `costs` by metric key (`macs`, `latency_ms@local`), in the unit of the metric.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    arch: Arch
    score: float
    predicted: float
    predicted_std: float
    supernet: float | None
    feasible: bool
    costs: dict[str, float]


@dataclass(frozen=True)
class SearchResult:
    """Outcome of one search.

    `top`: the best feasible archs by score, the winner first; evaluated ones only, if the search
    had an evaluator. `fronts`: per metric key, all archs that no other beats in both cost and
    score, cheapest first, feasible or not. `mode`: the most probable arch of a policy.
    `n_predictions` counts distinct archs priced and forecast, `n_proposals` also repeats.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    name: str
    winner: Candidate
    top: tuple[Candidate, ...]
    fronts: dict[str, tuple[Candidate, ...]]
    mode: Candidate | None
    limits: dict[str, float]
    n_generations: int
    n_proposals: int
    n_predictions: int
    n_evaluations: int


def candidates(archive: Archive, rows: Rows, costs: Costs) -> tuple[Candidate, ...]:
    """Records of some rows of an archive, with their costs [len(rows)] by metric key."""
    column = archive.column
    return tuple(
        Candidate(
            arch=archive.space.arch(column("codes")[row]),
            score=float(column("score")[row]),
            predicted=float(column("predicted")[row]),
            predicted_std=float(column("predicted_std")[row]),
            supernet=None if np.isnan(column("label")[row]) else float(column("label")[row]),
            feasible=bool(column("feasible")[row]),
            costs={key: float(values[position]) for key, values in costs.items()},
        )
        for position, row in enumerate(rows)
    )
