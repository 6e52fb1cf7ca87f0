"""Describes accuracies that are not better than chance."""

from __future__ import annotations

import math
from collections.abc import Iterable

__all__ = ["chance_warning"]

LEARNT = 6.0
"""A top-1 that is less than so many standard deviations above chance is not told from it, as the
errors of a network are not independent. Halfway to 1 suffices where images are few."""

LUCK = 1e-3
"""Neither is one that independent guesses reach with at least this probability."""


def chance_warning(top1: Iterable[tuple[float, int]], num_classes: int) -> str:
    """That no network is better than guessing; empty where one is.

    top1: of each network, its top-1 accuracy and the number of images that it was measured on.
    """
    chance, rows = 1 / num_classes, [*top1]
    if not rows or any(_is_learnt(value, n, chance) for value, n in rows):
        return ""
    best, n = max(rows)
    return (
        f"no network is better than guessing: the best top-1 is {best:.2%} on {n:,} images, chance"
        f" is {chance:.2%}. The accuracies of this run mean nothing (its latencies do): are the"
        " weights those of this space, and data.classes and data.normalise theirs? Or are there too"
        " few images to tell?"
    )


def _is_learnt(value: float, n: int, chance: float) -> bool:
    bar = chance + LEARNT * math.sqrt(chance * (1 - chance) / n)
    return value > min(bar, (1 + chance) / 2) and at_least(round(value * n), n, chance) < LUCK


def at_least(k: int, n: int, p: float) -> float:
    """Probability of k or more successes in n trials of probability p, 0 < p < 1.

    1 where so many are expected: then it is near a half, or above.
    """
    if k <= n * p:
        return 1.0
    log_first = (
        *(math.lgamma(n + 1), -math.lgamma(k + 1), -math.lgamma(n - k + 1)),
        *(k * math.log(p), (n - k) * math.log1p(-p)),
    )
    term = total = math.exp(math.fsum(log_first))
    for i in range(k, n):
        term *= (n - i) / (i + 1) * p / (1 - p)
        total += term
        if term < total * 1e-9:
            break
    return total
