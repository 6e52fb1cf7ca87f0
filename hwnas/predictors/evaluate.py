"""Ranking quality of a predictor on held-out archs, compared with MACs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hwnas.core.errors import Invalid, UserError
from hwnas.core.records import STRICT, Count, NotNegative, Rank, Share
from hwnas.core.rng import rng
from hwnas.core.stats import Z90, bootstrap_interval, kendall_tau
from hwnas.interfaces import AccuracyPredictor, FloatArray
from hwnas.predictors.top import TopQuality, top_quality
from hwnas.spaces.cost import cost
from hwnas.spaces.space import Codes, SearchSpace

__all__ = [
    "BuildPredictor",
    "PredictorReport",
    "cross_fitted",
    "cross_validated_report",
    "cross_validated_rows",
    "held_out_report",
    "held_out_rows",
]

BuildPredictor = Callable[[], AccuracyPredictor]
Split = tuple[NDArray[np.int64], NDArray[np.int64]]  # rows to fit, held-out rows

MIN_HELD_OUT = 2


@dataclass(frozen=True)
class PredictorReport:
    """Rank quality and calibration on held-out archs; scores in the unit of the labels.

    kendall_tau_interval: 90 % bootstrap interval over the held-out archs.
    coverage: fraction of held-out archs inside the 90 % interval of the predictor.
    interval_width: mean full width of these intervals.
    macs_tau, params_tau: tau of a ranking by cost only, on the same archs.
    truth, predicted, predicted_std: values of the held-out archs in the same order, for a scatter
        plot.
    sources: number of all labels by source.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    n_fit: Count
    n_held_out: Count
    n_folds: Count
    kendall_tau: Rank
    kendall_tau_interval: tuple[Rank, Rank]
    macs_tau: Rank
    params_tau: Rank
    rmse: NotNegative
    coverage: Share
    interval_width: NotNegative
    truth: tuple[float, ...]
    predicted: tuple[float, ...]
    predicted_std: tuple[NotNegative, ...]
    sources: dict[str, Count] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not len(self.truth) == len(self.predicted) == len(self.predicted_std):
            lengths = f"{len(self.truth)}, {len(self.predicted)} and {len(self.predicted_std)}"
            raise Invalid("equal lengths of truth, predicted and predicted_std", lengths)

    @property
    def top(self) -> TopQuality:
        """How well the predictor finds the best of the held-out archs."""
        return top_quality(np.array(self.predicted), np.array(self.truth))


def held_out_report(
    build_predictor: BuildPredictor,
    codes: Codes,
    scores: FloatArray,
    *,
    space: SearchSpace,
    seed: int,
    held_out_fraction: float = 0.25,
) -> PredictorReport:
    """Fits a new predictor on a random part of the labels and tests it on the rest.

    Raises:
        UserError: fewer than two archs would be held out, or too few are left for the fit.
    """
    split = held_out_rows(len(codes), seed=seed, held_out_fraction=held_out_fraction)
    return _report(build_predictor, codes, scores, [split], space=space, seed=seed)


def held_out_rows(n: int, *, seed: int, held_out_fraction: float = 0.25) -> Split:
    """Row numbers for the fit, and held-out row numbers in the order of `held_out_report`."""
    order = rng(seed, "predictor/held_out").permutation(n)
    n_held = round(held_out_fraction * n)
    return order[n_held:], order[:n_held]


def cross_validated_report(
    build_predictor: BuildPredictor,
    codes: Codes,
    scores: FloatArray,
    *,
    space: SearchSpace,
    seed: int,
    n_folds: int = 5,
) -> PredictorReport:
    """Holds out every arch once, in `n_folds` fits; reports the pooled predictions.

    All labels are test points, at `n_folds` times the cost. Pooling reduces tau a little, because
    folds differ in level.
    """
    order = cross_validated_rows(len(codes), seed=seed)
    parts = np.array_split(order, n_folds)
    splits = [(np.setdiff1d(order, part), part) for part in parts]
    return _report(build_predictor, codes, scores, splits, space=space, seed=seed)


def cross_validated_rows(n: int, *, seed: int) -> NDArray[np.int64]:
    """All row numbers [n], in the order of the values in `cross_validated_report`."""
    return rng(seed, "predictor/folds").permutation(n)


def cross_fitted(
    build_predictor: BuildPredictor,
    codes: Codes,
    scores: FloatArray,
    *,
    seed: int,
    n_folds: int = 5,
) -> FloatArray:
    """Mean prediction [n] of every labelled arch by a predictor fitted without this arch."""
    folds = rng(seed, "predictor/cross_fitted").permutation(len(codes)) % n_folds
    means = np.empty(len(codes))
    for fold in range(min(n_folds, len(codes))):
        predictor = build_predictor()
        predictor.fit(codes[folds != fold], scores[folds != fold])
        means[folds == fold] = predictor.predict(codes[folds == fold])[0]
    return means


def _report(
    build_predictor: BuildPredictor,
    codes: Codes,
    scores: FloatArray,
    splits: Sequence[Split],
    *,
    space: SearchSpace,
    seed: int,
) -> PredictorReport:
    held = np.concatenate([part for _, part in splits])
    if min(len(part) for _, part in splits) < 1 or len(held) < MIN_HELD_OUT:
        raise UserError(
            "too few held-out archs to test a predictor",
            expected=f"at least {MIN_HELD_OUT}, and 1 in each of {len(splits)} folds",
            found=f"{len(held)} held out of {len(codes)} labels",
            fix="label more archs, or hold out a larger fraction",
        )
    means, stds = [], []
    for fit_rows, held_rows in splits:
        predictor = build_predictor()
        predictor.fit(codes[fit_rows], scores[fit_rows])
        mean, std = predictor.predict(codes[held_rows])
        means.append(mean)
        stds.append(std)
    truth, mean, std = scores[held], np.concatenate(means), np.concatenate(stds)
    interval = bootstrap_interval(kendall_tau, mean, truth, rng=rng(seed, "predictor/bootstrap"))
    return PredictorReport(
        n_fit=len(splits[0][0]),
        n_held_out=len(held),
        n_folds=len(splits),
        kendall_tau=kendall_tau(mean, truth),
        kendall_tau_interval=interval,
        macs_tau=kendall_tau(cost(space, codes[held], "macs").astype(np.float64), truth),
        params_tau=kendall_tau(cost(space, codes[held], "params").astype(np.float64), truth),
        rmse=float(np.sqrt(((mean - truth) ** 2).mean())),
        coverage=float((np.abs(mean - truth) <= Z90 * std).mean()),
        interval_width=float(2 * Z90 * std.mean()),
        truth=tuple(truth.tolist()),
        predicted=tuple(mean.tolist()),
        predicted_std=tuple(std.tolist()),
    )
