"""Accuracies that guessing has as well, in words."""

from __future__ import annotations

import math
from collections.abc import Iterable

__all__ = ["chance_warning"]

LEARNT = 6.0
"""A top-1 that is less than so many standard deviations above chance is not told from chance."""


def chance_warning(top1: Iterable[tuple[float, int]], num_classes: int) -> str:
    """That no network is better than guessing; empty where one is.

    top1: of each network, its top-1 accuracy and the number of images that it was measured on.
    """
    chance, rows = 1 / num_classes, [*top1]
    if not rows or any(
        value > chance + LEARNT * math.sqrt(chance * (1 - chance) / n) for value, n in rows
    ):
        return ""
    best, n = max(rows)
    return (
        f"no network is better than guessing: the best top-1 is {best:.2%} on {n:,} images, chance"
        f" is {chance:.2%}. The accuracies of this run mean nothing (its latencies do): are the"
        " weights those of this space, and data.classes and data.normalise theirs?"
    )
