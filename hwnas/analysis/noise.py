"""Repeatability of the true ranking: the highest rank correlation that a score can reach."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Any, ClassVar

import numpy as np

from hwnas.analysis.ranks import MIN_ARCHS
from hwnas.core.errors import UserError
from hwnas.core.records import STRICT
from hwnas.core.stats import kendall_tau
from hwnas.interfaces import FloatArray

__all__ = ["NoiseCeiling", "noise_ceiling"]

TOP_FRACTION = 0.1


@dataclass(frozen=True)
class NoiseCeiling:
    """Agreement of repeated measurements of the same `n` archs, `n_repeats` each.

    kendall_tau: mean over pairs of repeats.
    kendall_tau_top: the same within the archs whose mean over all repeats is in the top 10 %.
    std: mean standard deviation of the repeats of an arch, in the unit of the values.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    n: int
    n_repeats: int
    kendall_tau: float
    kendall_tau_top: float
    std: float


def noise_ceiling(repeats: FloatArray) -> NoiseCeiling:
    """The ceiling from `repeats` [n, r], for example accuracies with r training seeds.

    A ranking can agree better with the mean of the repeats than one repeat does with another. An
    agreement far above the ceiling is due to chance. The definition is that of 2010.08219. For
    NAS-Bench-Macro, the ceiling of tau is 0.88, and 0.18 in the top 10 %.

    Raises:
        UserError: fewer than ten archs or two repeats, or a value is not finite.
    """
    repeats = np.asarray(repeats, dtype=np.float64)
    if repeats.ndim != 2 or repeats.shape[0] < MIN_ARCHS or repeats.shape[1] < 2:
        raise UserError(
            "too few repeated values to measure the repeatability of the truth",
            expected=f"at least two values for each of at least {MIN_ARCHS} archs",
            found=f"an array of shape {repeats.shape}",
        )
    if not np.isfinite(repeats).all():
        raise UserError(
            "repeated values must be finite",
            expected="finite numbers",
            found=f"{(~np.isfinite(repeats)).sum()} of {repeats.size} are infinite or NaN",
        )
    means = repeats.mean(axis=1)
    top = means >= np.sort(means)[-max(2, round(TOP_FRACTION * len(means)))]
    pairs = list(combinations(range(repeats.shape[1]), 2))
    return NoiseCeiling(
        n=len(repeats),
        n_repeats=repeats.shape[1],
        kendall_tau=float(np.mean([kendall_tau(repeats[:, i], repeats[:, j]) for i, j in pairs])),
        kendall_tau_top=float(
            np.mean([kendall_tau(repeats[top, i], repeats[top, j]) for i, j in pairs])
        ),
        std=float(repeats.std(axis=1, ddof=1).mean()),
    )
