"""Assigns the images of a class or group to splits. Torch-free."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from hwnas.core.errors import UserError

__all__ = ["cuts", "grouped_split", "split_sizes", "stratified_split"]


def stratified_split(
    labels: NDArray[np.int64], fractions: Sequence[float], random: np.random.Generator
) -> list[NDArray[np.int64]]:
    """Splits the rows of `labels` at random into len(fractions) + 1 parts; the last has the rest.

    Every class is cut at its rounded cumulative fractions, so each part is within one image of its
    share of each class. Each part is shuffled, so its first k rows are a random sample.
    """
    parts: list[list[NDArray[np.int64]]] = [[] for _ in (*fractions, 1)]
    for label in np.unique(labels):
        rows = random.permutation(np.flatnonzero(labels == label))
        for part, piece in zip(parts, np.split(rows, cuts(len(rows), fractions)), strict=True):
            part.append(piece)
    return [random.permutation(np.concatenate(part)) for part in parts]


def grouped_split(
    groups: NDArray[np.int64], fraction: float, random: np.random.Generator
) -> list[NDArray[np.int64]]:
    """Draws whole groups for validation; returns the rows of training and of validation images.

    groups: group of each image, [n].
    fraction: share of validation images. It is met as closely as the drawn order of groups allows,
        with at least one group in each part. Each part is shuffled.

    Raises:
        UserError: there is only one group.
    """
    found, sizes = np.unique(groups, return_counts=True)
    if len(found) < 2:
        raise UserError(
            "images of one group cannot be split into training and validation images",
            expected="at least two groups",
            found="one group" if len(found) else "no groups",
            fix="give the images of at least two groups",
        )
    order = random.permutation(len(found))
    misses = np.abs(np.cumsum(sizes[order]) - fraction * len(groups))
    held = found[order[: int(misses[:-1].argmin()) + 1]]
    is_held = np.isin(groups, held)
    return [random.permutation(np.flatnonzero(is_held == side)) for side in (False, True)]


def cuts(n: int, fractions: Sequence[float]) -> NDArray[np.int64]:
    """Indices at which n shuffled images of a class are cut: rounded cumulative fractions."""
    found: NDArray[np.int64] = np.rint(np.cumsum(fractions) * n).astype(np.int64)
    return found


def split_sizes(counts: Iterable[int], fractions: Sequence[float]) -> list[int]:
    """Sizes of the len(fractions) + 1 parts, from the numbers of images per class, `counts`."""
    per_class = [np.diff([0, *cuts(n, fractions), n]) for n in counts]
    return [int(total) for total in np.sum(per_class, axis=0)]
