"""What every predictor asks of its labels, and the arithmetic of scales and intervals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from hwnas.core.errors import UserError
from hwnas.core.records import STRICT
from hwnas.core.stats import conformal_quantile
from hwnas.interfaces import FloatArray
from hwnas.spaces.space import Codes, SearchSpace

__all__ = ["LEVEL", "Z90", "Scale", "check_codes", "check_labels", "not_fitted", "spread_factor"]

LEVEL = 0.9
"""Level of every interval that a predictor promises: mean +- Z90 * std."""

Z90 = 1.6448536269514722  # 95 % quantile of the normal distribution

MIN_LABELS = 4


@dataclass(frozen=True)
class Scale:
    """Mean and standard deviation of scores; `std` is exactly 0 where they are constant."""

    __pydantic_config__: ClassVar[Any] = STRICT

    mean: float
    std: float

    @staticmethod
    def of(scores: FloatArray) -> Scale:
        """Statistics of `scores` [n]."""
        return Scale(float(scores.mean()), float(scores.std()) if np.ptp(scores) > 0 else 0.0)

    def standardise(self, scores: FloatArray) -> FloatArray:
        """Scores with mean 0 and std 1; all zero where the scale was fitted on a constant."""
        return (scores - self.mean) / self.std if self.std else np.zeros_like(scores)

    def restore(self, standardised: FloatArray) -> FloatArray:
        """Inverse of `standardise`."""
        return self.mean + self.std * standardised


def check_codes(space: SearchSpace, codes: Codes) -> None:
    """Refuse codes that cannot be archs of `space`.

    Codes that a restricted space no longer allows pass: labels outlive a pruning.

    Raises:
        UserError: wrong shape, or a code out of its choice's range.
    """
    if codes.ndim != 2 or codes.shape[1] != len(space.choices):
        raise UserError(
            "codes do not belong to this space",
            expected=f"[n, {len(space.choices)}]",
            found=list(codes.shape),
            where=space.id,
        )
    ends = np.array([len(choice.values) for choice in space.choices])
    outside = ((codes < 0) | (codes >= ends)).any(axis=0)
    if outside.any():
        column = int(outside.argmax())
        raise UserError(
            f"codes are out of range for {space.choices[column].name}",
            expected=f"0..{ends[column] - 1}",
            found=f"{codes[:, column].min()}..{codes[:, column].max()}",
            where=space.id,
        )


def check_labels(space: SearchSpace, codes: Codes, scores: FloatArray) -> FloatArray:
    """The scores as float64, after `check_codes`.

    Raises:
        UserError: bad codes, another number of scores, fewer than four, or a score is not finite.
    """
    check_codes(space, codes)
    scores = np.asarray(scores, dtype=np.float64)
    if scores.shape != (len(codes),):
        raise UserError(
            "every arch needs one score", expected=[len(codes)], found=list(scores.shape)
        )
    if len(scores) < MIN_LABELS:
        raise UserError(
            "too few labelled archs to fit a predictor",
            expected=f"at least {MIN_LABELS}",
            found=len(scores),
        )
    if not np.isfinite(scores).all():
        n_bad = int((~np.isfinite(scores)).sum())
        raise UserError("scores must be finite", found=f"{n_bad} that are not")
    return scores


def not_fitted() -> UserError:
    """The error of `predict` and `state` before `fit`."""
    return UserError("the predictor has not been fitted", fix="call fit or load_state first")


def spread_factor(residuals: FloatArray, spread: FloatArray) -> float:
    """Factor that turns a spread into a std whose 90 % interval covers new residuals.

    `residuals` are those of points that the model did not learn from (split conformal prediction
    with the spread as the scale of difficulty: Lei et al. 2018, section 5.2).
    """
    return conformal_quantile(residuals / np.maximum(spread, 1e-12), LEVEL) / Z90
