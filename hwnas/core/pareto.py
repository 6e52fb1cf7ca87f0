"""Non-dominated fronts and 2-D hypervolume; every objective is minimised."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["crowding", "hypervolume_2d", "non_dominated", "ranks"]

SAMPLE = 1024  # points that are sorted first, to eliminate most of the others

FloatArray = NDArray[np.float64]


def non_dominated(points: FloatArray) -> NDArray[np.bool_]:
    """bool [n] for points [n, m]: True if no other point dominates the point.

    Equal points are all kept. O(n log n) for two objectives, O(n * front) otherwise.
    """
    if points.shape[1] == 1:
        return np.asarray(points[:, 0] == points.min(initial=np.inf))
    if points.shape[1] == 2:
        kept = _not_beaten(points, points[:: max(1, len(points) // SAMPLE)])
        kept[kept] = _non_dominated_2d(points[kept])
        return kept
    kept = np.ones(len(points), dtype=bool)
    for row in np.lexsort(points.T[::-1]):
        if kept[row]:
            point = points[row]
            kept &= (points < point).any(axis=1) | (points == point).all(axis=1)
    return kept


def _non_dominated_2d(points: FloatArray) -> NDArray[np.bool_]:
    """Sorts by x, then y. A point stays if no y of the same or a smaller x is less."""
    order = np.lexsort((points[:, 1], points[:, 0]))
    x, y = points[order].T
    group = np.searchsorted(x, x, side="left")  # first row with the same x: it has the least y
    lowest_before = np.concatenate([[np.inf], np.minimum.accumulate(y)])[group]
    kept = np.zeros(len(points), dtype=bool)
    kept[order] = (y == y[group]) & (y < lowest_before)
    return kept


def _not_beaten(points: FloatArray, some: FloatArray) -> NDArray[np.bool_]:
    """bool [n]: no point of `some` is better in y and no worse in x; avoids sorting all points."""
    front = some[_non_dominated_2d(some)]
    front = front[np.argsort(front[:, 0])]
    nearest = np.searchsorted(front[:, 0], points[:, 0], side="right") - 1
    lowest = np.append(front[:, 1], np.inf)[nearest]  # index -1 (nothing to the left) reads inf
    return np.asarray(lowest >= points[:, 1])


def hypervolume_2d(points: FloatArray, reference: tuple[float, float]) -> float:
    """Area dominated by points [n, 2] within `reference`; other points do not count."""
    inside = points[(points < np.asarray(reference)).all(axis=1)]
    if not len(inside):
        return 0.0
    front = np.unique(inside[_non_dominated_2d(inside)], axis=0)  # x ascending, y descending
    right = np.append(front[1:, 0], reference[0])
    return float(((right - front[:, 0]) * (reference[1] - front[:, 1])).sum())


def ranks(points: FloatArray, n: int) -> NDArray[np.intp]:
    """Rank of each point, [len(points)]: 0 on the front, 1 on the front of the other points, ...

    Ranking stops as soon as at least n points have a rank; all other points share the next rank.
    """
    found = np.zeros(len(points), dtype=np.intp)
    rest = np.arange(len(points))
    rank = 0
    while len(rest) and len(points) - len(rest) < n:
        front = non_dominated(points[rest])
        found[rest[front]] = rank
        rest, rank = rest[~front], rank + 1
    found[rest] = rank
    return found


def crowding(points: FloatArray) -> FloatArray:
    """Crowding distance [n] of points of one front (Deb et al. 2002, NSGA-II, section III-B).

    It is the sum, over the objectives, of the distance between the two neighbours of a point,
    relative to the extent of the front. It is infinite for the ends of the front.
    """
    total = np.zeros(len(points))
    for values in points.T:
        order = np.argsort(values, kind="stable")
        gaps = np.full(len(points), np.inf)
        extent = values[order[-1]] - values[order[0]] if len(points) else 0.0
        if extent > 0:
            gaps[1:-1] = (values[order[2:]] - values[order[:-2]]) / extent
            total[order] += gaps
    return total
