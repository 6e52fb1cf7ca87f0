"""Rank correlation and related measures of a score against the truth (2010.08219).

The truth can be stand-alone accuracy. Scores can come from a supernet, a predictor or MACs. Higher
is better for both. Correlation over all archs says little about the best archs. So the report also
has correlations within the true top, and the effect of pruning and selecting by the score.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hwnas.core.errors import UserError
from hwnas.core.records import STRICT
from hwnas.core.rng import rng
from hwnas.core.stats import bootstrap_interval, kendall_tau, spearman
from hwnas.interfaces import FloatArray
from hwnas.spaces.space import Codes, SearchSpace

__all__ = [
    "MIN_ARCHS",
    "Correlations",
    "Estimate",
    "Pick",
    "Prune",
    "RankReport",
    "check_codes",
    "check_pair",
    "pearson",
    "rank_report",
]

MIN_ARCHS = 10
TOP_FRACTIONS = (0.5, 0.1)
PICK_FRACTIONS = (0.01, 0.05, 0.1, 0.5)
PRUNED_FRACTIONS = (0.1, 0.25, 0.5, 0.75, 0.9)
GOOD_FRACTION = 0.1  # the true top fraction whose survival of a pruning is reported
N_RESAMPLES = 200

Statistic = Callable[[FloatArray, FloatArray], float]


@dataclass(frozen=True)
class Estimate:
    """A statistic and its 90 % bootstrap interval over archs."""

    __pydantic_config__: ClassVar[Any] = STRICT

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Correlations:
    """Agreement of scores and truth on the true top `top_fraction` (1.0 = all) of the archs."""

    __pydantic_config__: ClassVar[Any] = STRICT

    top_fraction: float
    n: int
    kendall_tau: Estimate
    spearman: Estimate
    pearson: Estimate


@dataclass(frozen=True)
class Pick:
    """Result of selecting the k best-scored archs, `fraction` of all.

    precision: share of them in the true top k.
    lift: precision / precision of random selection (k / n).
    best_true_rank: true rank of the best of them; 1 = the best of all.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    fraction: float
    k: int
    precision: Estimate
    lift: float
    best_true_rank: int


@dataclass(frozen=True)
class Prune:
    """Share of the true top 10 % that is left if the worst-scored `pruned_fraction` is removed."""

    __pydantic_config__: ClassVar[Any] = STRICT

    pruned_fraction: float
    recall_of_top: Estimate


@dataclass(frozen=True)
class RankReport:
    """All results of `rank_report`; `core.records.dump` converts it to JSON."""

    __pydantic_config__: ClassVar[Any] = STRICT

    n: int
    correlations: tuple[Correlations, ...]
    picks: tuple[Pick, ...]
    prunes: tuple[Prune, ...]

    @property
    def overall(self) -> Correlations:
        """Correlations over all archs."""
        return self.correlations[0]


def pearson(first: FloatArray, second: FloatArray) -> float:
    """Pearson's r in [-1, 1]; 0 if one side is constant."""
    if len(first) < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])


def rank_report(scores: FloatArray, truth: FloatArray, *, seed: int) -> RankReport:
    """Compares `scores` [n] with `truth` [n].

    Equal scores are ordered at random (fixed by `seed`). Archs tied with the k-th best truth all
    count as true top k.

    Raises:
        UserError: lengths differ, fewer than ten archs, or a value is not finite.
    """
    scores, truth = check_pair(scores, truth)
    shuffled = rng(seed, "analysis/ties").permutation(len(scores))
    scores, truth = scores[shuffled], truth[shuffled]

    def estimate(statistic: Statistic, rows: NDArray[np.bool_] | None = None) -> Estimate:
        """The statistic and its interval, on all archs or some rows."""
        first, second = (scores, truth) if rows is None else (scores[rows], truth[rows])
        source = rng(seed, "analysis/bootstrap")
        interval = bootstrap_interval(statistic, first, second, rng=source, n_resamples=N_RESAMPLES)
        return Estimate(statistic(first, second), *interval)

    def correlations(fraction: float) -> Correlations:
        rows = truth >= _nth_best(truth, fraction)
        measured = [estimate(statistic, rows) for statistic in (kendall_tau, spearman, pearson)]
        return Correlations(fraction, int(rows.sum()), *measured)

    def pick(fraction: float) -> Pick:
        k = _count(len(scores), fraction)
        precision = estimate(partial(_precision, fraction=fraction))
        best_truth = truth[_best_scored(scores, k)].max()
        lift = precision.value * len(scores) / k
        return Pick(fraction, k, precision, lift, 1 + int((truth > best_truth).sum()))

    return RankReport(
        n=len(scores),
        correlations=tuple(correlations(fraction) for fraction in (1.0, *TOP_FRACTIONS)),
        picks=tuple(pick(fraction) for fraction in PICK_FRACTIONS),
        prunes=tuple(
            Prune(fraction, estimate(partial(_recall, pruned_fraction=fraction)))
            for fraction in PRUNED_FRACTIONS
        ),
    )


def check_pair(scores: FloatArray, truth: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Checks both arrays, [n] each; returns them as float64.

    Raises:
        UserError: lengths differ, fewer than ten archs, or a value is not finite.
    """
    scores, truth = np.asarray(scores, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    if scores.ndim != 1 or scores.shape != truth.shape:
        raise UserError(
            "cannot compare scores with the truth",
            expected="two arrays [n] of equal length: a score and a true value per arch",
            found=f"arrays of shape {scores.shape} and {truth.shape}",
        )
    if len(scores) < MIN_ARCHS:
        raise UserError(
            "too few archs to compare scores with the truth",
            expected=f"at least {MIN_ARCHS} archs with a score and a true value",
            found=f"{len(scores)} archs",
            fix="record or label more archs",
        )
    if not (np.isfinite(scores).all() and np.isfinite(truth).all()):
        n_scores, n_true = (int((~np.isfinite(values)).sum()) for values in (scores, truth))
        raise UserError(
            "scores and true values must be finite",
            expected="finite numbers",
            found=f"{n_scores} scores and {n_true} true values are infinite or NaN",
        )
    return scores, truth


def check_codes(space: SearchSpace, codes: Codes, n: int) -> None:
    """Checks that `codes` are the codes of n archs of the space.

    Raises:
        UserError: `codes` has another shape.
    """
    if codes.shape != (n, len(space.choices)):
        raise UserError(
            "codes do not match the scores",
            expected=f"an array [n, d] of shape {(n, len(space.choices))}",
            found=f"shape {codes.shape}",
            where=space.id,
        )


def _count(n: int, fraction: float) -> int:
    """Number of archs in a fraction of n, at least 1."""
    return max(1, round(fraction * n))


def _nth_best(values: FloatArray, fraction: float) -> float:
    """The threshold that the best `fraction` of `values` reach."""
    return float(np.sort(values)[-_count(len(values), fraction)])


def _best_scored(scores: FloatArray, k: int) -> NDArray[np.int64]:
    """Rows of the k largest scores; equal scores stay in order."""
    return np.argsort(-scores, kind="stable")[:k]


def _precision(scores: FloatArray, truth: FloatArray, *, fraction: float) -> float:
    picked = truth[_best_scored(scores, _count(len(scores), fraction))]
    return float((picked >= _nth_best(truth, fraction)).mean())


def _recall(scores: FloatArray, truth: FloatArray, *, pruned_fraction: float) -> float:
    kept = truth[_best_scored(scores, _count(len(scores), 1 - pruned_fraction))]
    good = _nth_best(truth, GOOD_FRACTION)
    return float((kept >= good).sum() / (truth >= good).sum())
