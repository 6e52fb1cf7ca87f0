"""The result of a search, as records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np

from hwnas.controller.archive import Archive, Rows
from hwnas.controller.constraints import Costs
from hwnas.core.metrics import MetricKey
from hwnas.core.records import STRICT, Count, NotNegative
from hwnas.interfaces import TOP1, Evaluation, Quality, Split, quality_of
from hwnas.spaces.arch import Arch

__all__ = ["Accuracy", "Candidate", "SearchResult", "candidates", "to_evaluate", "with_accuracies"]

MAX_EVALUATED = 40  # archs of the fronts of a search


@dataclass(frozen=True)
class Accuracy:
    """Accuracy of an arch, and the source of the value.

    value: for an evaluated arch, its top-1 in [0, 1] or (language models) its perplexity, on
        `split`. For other archs, the prediction, in the unit of the predictor's labels.
    source: as in `Evaluation`.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    value: float
    unit: Literal["top1", "perplexity", "predicted score"]
    source: Literal["supernet", "trained", "predicted", "measured"]
    split: Split | None = None

    @property
    def top1(self) -> float | None:
        """The value if it is a top-1, else None."""
        return self.value if self.unit == "top1" else None

    @property
    def perplexity(self) -> float | None:
        """The value if it is a perplexity, else None."""
        return self.value if self.unit == "perplexity" else None

    @staticmethod
    def of(evaluation: Evaluation, quality: Quality = TOP1) -> Accuracy:
        """The top-1 or perplexity of an evaluation."""
        value = quality.of(evaluation.top1, evaluation.val_loss)
        unit: Literal["top1", "perplexity"] = "top1" if quality == TOP1 else "perplexity"
        return Accuracy(value, unit, evaluation.source, evaluation.split)


@dataclass(frozen=True)
class Candidate:
    """One arch of an archive. `score` is the blend if `supernet` is known, else `predicted`.

    costs: by metric key (`macs`, `latency_ms@local`), in the unit of the metric.
    supernet: score of the evaluation.
    accuracy: top-1 to show; missing in results of earlier versions.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    arch: Arch
    score: float
    predicted: float
    predicted_std: NotNegative
    supernet: float | None
    feasible: bool
    costs: dict[str, NotNegative]
    accuracy: Accuracy | None = None

    def latency_ms(self, device: str) -> float:
        """Estimated median latency in ms on a device whose table the search used."""
        return self.costs[MetricKey("latency_ms", device)]


@dataclass(frozen=True)
class SearchResult:
    """Outcome of one search.

    top: the best feasible archs by score, the winner first; only evaluated ones if the search had
        an evaluator.
    fronts: per metric key, all archs that no other arch beats in both cost and score, cheapest
        first, feasible or not.
    mode: the most probable arch of the policy; None if the searcher has no policy.
    n_predictions: number of distinct archs that were priced and predicted.
    n_proposals: number of proposals, including repeats.
    found_by: the device whose search found the winner, if that is not the device of this search
        (see `controller.exchange`).
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    name: str
    winner: Candidate
    top: tuple[Candidate, ...]
    fronts: dict[str, tuple[Candidate, ...]]
    mode: Candidate | None
    limits: dict[str, float]
    n_generations: Count
    n_proposals: Count
    n_predictions: Count
    n_evaluations: Count
    found_by: str | None = None

    def limit(self, metric: str, device: str) -> float | None:
        """The limit of a metric (of `device`, if it is a latency); None if there was none.

        Also None if the winner exceeds it, which `limits_met_on` allows on some devices.
        """
        key, limit = self._limit(metric, device)
        is_held = limit is not None and self.winner.costs.get(key, 0.0) / limit <= 1
        return limit if is_held else None

    def given_limit(self, metric: str, device: str) -> float | None:
        """Like `limit`, but also for a device on which the winner may exceed the limit."""
        return self._limit(metric, device)[1]

    def _limit(self, metric: str, device: str) -> tuple[str, float | None]:
        wanted = MetricKey.of(metric, device)
        found = (item for item in self.limits.items() if MetricKey.parse(item[0]).base == wanted)
        return next(found, (wanted, None))


def candidates(
    archive: Archive, rows: Rows, costs: Costs, evaluations: Mapping[int, Evaluation]
) -> tuple[Candidate, ...]:
    """Records of some rows of an archive.

    costs: costs of these rows, [len(rows)] for each metric key.
    evaluations: evaluations of the evaluated rows, by row number.
    """
    column = archive.column

    def accuracy(row: int) -> Accuracy:
        if (known := evaluations.get(row)) is not None:
            return Accuracy.of(known, quality_of(archive.space))
        return Accuracy(float(column("predicted")[row]), "predicted score", "predicted")

    return tuple(
        Candidate(
            arch=archive.space.arch(column("codes")[row]),
            score=float(column("score")[row]),
            predicted=float(column("predicted")[row]),
            predicted_std=float(column("predicted_std")[row]),
            supernet=None if np.isnan(column("label")[row]) else float(column("label")[row]),
            feasible=bool(column("feasible")[row]),
            costs={key: float(values[position]) for key, values in costs.items()},
            accuracy=accuracy(int(row)),
        )
        for position, row in enumerate(rows)
    )


def to_evaluate(result: SearchResult) -> list[Arch]:
    """The winner, and about `MAX_EVALUATED` archs evenly spaced along the fronts, ends included."""
    share = max(2, MAX_EVALUATED // max(1, len(result.fronts)))
    chosen: set[Arch] = {result.winner.arch}
    for front in result.fronts.values():
        rows = np.linspace(0, len(front) - 1, min(share, len(front))).round().astype(int)
        chosen |= {front[row].arch for row in rows}
    return sorted(chosen, key=lambda arch: arch.codes)


def with_accuracies(
    result: SearchResult, evaluations: Mapping[Arch, Evaluation], quality: Quality = TOP1
) -> SearchResult:
    """The result with the accuracy of all points of its fronts that are in `evaluations`."""

    def told(candidate: Candidate) -> Candidate:
        known = evaluations.get(candidate.arch)
        if known is None:
            return candidate
        return replace(candidate, accuracy=Accuracy.of(known, quality))

    fronts = {key: tuple(map(told, front)) for key, front in result.fronts.items()}
    return replace(result, fronts=fronts)
