"""Checks and scales the labels of predictors; arithmetic of intervals."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from hwnas.core.errors import UserError
from hwnas.core.records import STRICT, NotNegative
from hwnas.core.stats import Z90, conformal_quantile
from hwnas.interfaces import FloatArray
from hwnas.spaces.space import Codes, SearchSpace

__all__ = [
    "LEVEL",
    "RobustScale",
    "Scale",
    "check_codes",
    "check_labels",
    "not_fitted",
    "spread_factor",
    "whole",
]

LEVEL = 0.9
"""Level of the intervals of all predictors: mean +- Z90 * std."""

MIN_LABELS = 4
MAX_SCORE = 1e100  # its square is finite
MAX_LOG = 6.0  # `RobustScale` is clipped here, 300 units out; larger predictions are meaningless


@dataclass(frozen=True)
class Scale:
    """Mean and standard deviation of scores; `std` is exactly 0 if they are constant."""

    __pydantic_config__: ClassVar[Any] = STRICT

    mean: float
    std: NotNegative

    @staticmethod
    def of(scores: FloatArray) -> Scale:
        """Statistics of `scores` [n]."""
        return Scale(float(scores.mean()), float(scores.std()) if np.ptp(scores) > 0 else 0.0)

    def standardise(self, scores: FloatArray) -> FloatArray:
        """Scores with mean 0 and std 1; all zero if the scale was fitted on a constant."""
        return (scores - self.mean) / self.std if self.std else np.zeros_like(scores)

    def restore(self, standardised: FloatArray) -> FloatArray:
        """Inverse of `standardise`."""
        return self.mean + self.std * standardised


@dataclass(frozen=True)
class RobustScale:
    """Median and spread of scores, with compressed tails: linear near the median, then logarithmic.

    u = (score - median) / unit becomes sign(u) * LINEAR * (1 + log(|u| / LINEAR)) beyond LINEAR.
    Accuracies have a heavy lower tail: without compression, a few bad archs, ten units below the
    median, would dominate a squared error. `unit` is the interquartile range in standard deviations
    of a normal distribution.
    """

    LINEAR: ClassVar[float] = 2.0
    NORMAL_IQR: ClassVar[float] = 1.3489795003921634

    median: float
    unit: float

    @staticmethod
    def of(scores: FloatArray) -> RobustScale:
        """Statistics of `scores` [n]; the unit is 0 if they are constant."""
        low, median, high = np.quantile(scores, [0.25, 0.5, 0.75])
        unit = (high - low) / RobustScale.NORMAL_IQR
        return RobustScale(float(median), float(unit or Scale.of(scores).std))

    def standardise(self, scores: FloatArray) -> FloatArray:
        """Scores without unit; strictly increasing, all zero if the unit is 0."""
        u = (scores - self.median) / self.unit if self.unit else np.zeros_like(scores)
        size = np.maximum(np.abs(u) / self.LINEAR, 1)
        return np.where(size > 1, np.sign(u) * self.LINEAR * (1 + np.log(size)), u)

    def restore(self, standardised: FloatArray) -> FloatArray:
        """Inverse of `standardise`."""
        size = np.minimum(np.abs(standardised) / self.LINEAR, MAX_LOG)
        grown = np.sign(standardised) * self.LINEAR * np.exp(size - 1)
        return self.median + self.unit * np.where(size > 1, grown, standardised)


def whole(space: SearchSpace) -> SearchSpace:
    """The space without its restrictions; features of archs are computed in it.

    Labels and fitted predictors stay valid after a restriction, because the scores of archs do not
    change.
    """
    return replace(space, allowed=())


def check_codes(space: SearchSpace, codes: Codes) -> None:
    """Refuses codes that cannot be archs of `space`.

    Codes that a restricted space no longer allows are accepted, because labels stay valid after a
    restriction.

    Raises:
        UserError: wrong shape, or a code outside the range of its choice.
    """
    if codes.ndim != 2 or codes.shape[1] != len(space.choices):
        raise UserError(
            "codes do not belong to this space",
            expected=f"codes of shape [n, {len(space.choices)}]",
            found=f"codes of shape {list(codes.shape)}",
            where=space.id,
        )
    ends = np.array([len(choice.values) for choice in space.choices])
    outside = ((codes < 0) | (codes >= ends)).any(axis=0)
    if outside.any():
        column = int(outside.argmax())
        raise UserError(
            f"codes are out of range for {space.choices[column].name}",
            expected=f"codes from 0 to {ends[column] - 1}",
            found=f"codes from {codes[:, column].min()} to {codes[:, column].max()}",
            where=space.id,
        )


def check_labels(space: SearchSpace, codes: Codes, scores: FloatArray) -> FloatArray:
    """The scores as float64, after `check_codes`.

    Raises:
        UserError: invalid codes, a different number of scores, fewer than four, labels of one arch
            only, or a score that is not finite or beyond +-1e100.
    """
    check_codes(space, codes)
    scores = np.asarray(scores, dtype=np.float64)
    if scores.shape != (len(codes),):
        raise UserError(
            "every arch needs one score",
            expected=f"scores of shape [{len(codes)}]",
            found=f"scores of shape {list(scores.shape)}",
        )
    if len(scores) < MIN_LABELS:
        raise UserError(
            "too few labelled archs to fit a predictor",
            expected=f"at least {MIN_LABELS} archs",
            found=f"{len(scores)} archs",
        )
    if (codes == codes[0]).all():
        raise UserError(
            "all labels are of the same arch",
            expected="labels of at least 2 archs",
            found=f"{len(scores)} labels of one arch",
            where=space.id,
        )
    bad = ~(np.abs(scores) <= MAX_SCORE)
    if bad.any():
        what = "larger" if np.isfinite(scores).all() else "infinite or NaN"
        expected = f"finite numbers between -{MAX_SCORE:g} and {MAX_SCORE:g}"
        found = f"{int(bad.sum())} of {len(scores)} are {what}"
        raise UserError("scores are not finite or too large", expected=expected, found=found)
    return scores


def not_fitted() -> UserError:
    """The error of `predict` and `state` before `fit`."""
    return UserError("the predictor has not been fitted", fix="call fit or load_state first")


def spread_factor(residuals: FloatArray, spread: FloatArray) -> float:
    """Factor that converts a spread to a std whose 90 % interval covers new residuals.

    `residuals` must be those of points that the model did not learn from (split conformal
    prediction with the spread as the scale: Lei et al. 2018, section 5.2).
    """
    return conformal_quantile(residuals / np.maximum(spread, 1e-12), LEVEL) / Z90
