"""Rank correlation, bootstrap intervals, conformal and normal quantiles, on numpy arrays."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from hwnas.core.errors import UserError

__all__ = [
    "MOST_PAIRED",
    "Z80",
    "Z90",
    "accuracy_text",
    "agrees",
    "bootstrap_interval",
    "conformal_quantile",
    "kendall_tau",
    "require_positive",
    "spearman",
    "standard_error",
    "top_weighted_tau",
]

# Half-widths of 80 % and 90 % intervals of a normal distribution, in standard deviations. Shipped
# tables were computed with four decimals; more would change their last digits.
Z80, Z90 = 1.2816, 1.6449

FloatArray = NDArray[np.float64]

MOST_PAIRED = 128  # up to this n, comparing all pairs is faster than calling scipy (measured)
LEAST_CHANCE = 0.01  # a shortfall with a lower probability than this counts as real


def require_positive(values: FloatArray, problem: str, *, where: object = None) -> None:
    """Refuses numbers that are not finite or not above 0.

    Raises:
        UserError: with the text `problem`.
    """
    good = np.isfinite(values) & (values > 0)
    if not good.all():
        found = f"{(~good).sum()} of {good.size} numbers are 0, negative, infinite or NaN"
        raise UserError(problem, expected="finite numbers above 0", found=found, where=where)


def standard_error(share: float, n: int) -> float:
    """Standard error of a share of n independent images, sqrt(p (1 - p) / n).

    p is clipped to [0.5 / n, 1 - 0.5 / n], because the formula gives 0 at p = 0 and p = 1.
    """
    p = min(max(share, 0.5 / n), 1 - 0.5 / n)
    return float(np.sqrt(p * (1 - p) / n))


def accuracy_text(top1: float | None, n_images: int | None) -> str | None:
    """A top-1 in [0, 1] in percent, with its standard error: `90.00% \u00b1 1.00%`.

    n_images: number of images; None or 0: unknown, so there is no error.
    """
    if top1 is None or not n_images:
        return None if top1 is None else f"{top1:.2%}"
    return f"{top1:.2%} \u00b1 {standard_error(top1, n_images):.2%}"


def kendall_tau(first: FloatArray, second: FloatArray) -> float:
    """Kendall's tau-b in [-1, 1]; 0 if one side is constant."""
    if len(first) < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0
    if len(first) > MOST_PAIRED or not np.isfinite([first, second]).all():
        from scipy.stats import kendalltau

        return float(kendalltau(first, second).statistic)
    signs = [np.sign(np.subtract.outer(side, side)) for side in (first, second)]
    agreement = (signs[0] * signs[1]).sum() / 2  # concordant minus discordant pairs
    n_untied = [np.count_nonzero(sign) / 2 for sign in signs]
    tau = agreement / np.sqrt(n_untied[0]) / np.sqrt(n_untied[1])
    return float(np.clip(tau, -1, 1))


def top_weighted_tau(first: FloatArray, second: FloatArray) -> float:
    """Kendall's tau in [-1, 1] with weights 1 / rank, so that the largest values count most.

    Additive hyperbolic weights (Vigna 2015, "A weighted correlation index for rankings with ties");
    0 if one side is constant.
    """
    from scipy.stats import weightedtau

    if len(first) < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0
    return float(weightedtau(first, second).statistic)


def spearman(first: FloatArray, second: FloatArray) -> float:
    """Spearman's rho in [-1, 1]; 0 if one side is constant."""
    from scipy.stats import spearmanr

    if len(first) < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0
    return float(spearmanr(first, second).statistic)


def bootstrap_interval(
    statistic: Callable[[FloatArray, FloatArray], float],
    first: FloatArray,
    second: FloatArray,
    *,
    rng: np.random.Generator,
    level: float = 0.9,
    n_resamples: int = 500,
) -> tuple[float, float]:
    """Percentile bootstrap interval of `statistic(first, second)` over resampled pairs."""
    first, second = np.asarray(first), np.asarray(second)
    n = len(first)
    picks = rng.integers(0, n, size=(n_resamples, n))
    values = [statistic(first[pick], second[pick]) for pick in picks]
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def conformal_quantile(residuals: FloatArray, level: float = 0.9) -> float:
    """Half-width that covers a new residual with probability >= `level` (split conformal).

    The ceil((n+1) * level)-th smallest absolute residual (Lei et al. 2018, "Distribution-free
    predictive inference for regression", section 2.2); the largest residual if n is too small.
    """
    ordered = np.sort(np.abs(np.asarray(residuals, dtype=np.float64)))
    rank = int(np.ceil((len(ordered) + 1) * level))
    return float(ordered[min(rank, len(ordered)) - 1])


def agrees(n_equal: int, n: int, least: float) -> bool:
    """Whether n_equal equal answers out of n are consistent with a rate >= `least` in [0, 1].

    One-sided exact binomial test at 1 %. For `least` = 0.98, one wrong image of 16 passes and three
    fail. For `least` = 1, one wrong image fails. The device kit uses the same rule
    (`export/bundle_checks.py`).
    """
    if n_equal == n or least in (0, 1):
        return n_equal >= n * least
    from scipy.stats import binom  # takes a second to import

    return float(binom.sf(n - n_equal - 1, n, 1 - least)) >= LEAST_CHANCE
