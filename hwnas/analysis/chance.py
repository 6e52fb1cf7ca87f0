"""Detects accuracies that are not better than chance."""

from __future__ import annotations

import math
from collections.abc import Iterable

__all__ = ["chance_warning"]

LEARNT = 6.0
"""Standard deviations above chance from which a top-1 counts as learned.

The threshold is high because the errors of a network are not independent. With few images, halfway
between chance and 1 is enough.
"""

LUCK = 1e-3
"""A top-1 that independent guesses reach with at least this probability counts as chance."""


def chance_warning(top1: Iterable[tuple[float, int]], num_classes: int) -> str:
    """A warning if no network is better than guessing; otherwise empty.

    top1: top-1 accuracy and number of images of each network.
    """
    chance, rows = 1 / num_classes, [*top1]
    if not rows or any(_is_learnt(value, n, chance) for value, n in rows):
        return ""
    best, n = max(rows)
    return (
        f"no network is better than guessing: the best top-1 is {best:.2%} on {n:,} images, chance"
        f" is {chance:.2%}. The accuracies of this run have no meaning; its latencies are valid."
        " Check that the weights belong to this space, that data.classes and data.normalise fit the"
        " weights, and that there are enough images"
    )


def _is_learnt(value: float, n: int, chance: float) -> bool:
    bar = chance + LEARNT * math.sqrt(chance * (1 - chance) / n)
    return value > min(bar, (1 + chance) / 2) and at_least(round(value * n), n, chance) < LUCK


def at_least(k: int, n: int, p: float) -> float:
    """Probability of k or more successes in n trials of probability p, 0 < p < 1.

    Returns 1 if k is at most the expected number; the exact value is about a half or more.
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
