"""Fronts and hypervolume against definitions and closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from hwnas.core.pareto import crowding, hypervolume_2d, non_dominated, ranks


@pytest.mark.parametrize("n_objectives", [1, 2, 3])
@pytest.mark.parametrize("n_values", [4, 1000])
def test_front_is_the_definition(n_objectives: int, n_values: int) -> None:
    """Pairwise definition, on points with many ties (4 values) and few."""
    points = np.random.default_rng(0).integers(n_values, size=(150, n_objectives)).astype(float)
    no_worse = (points[:, None] <= points[None]).all(axis=2)
    better = (points[:, None] < points[None]).any(axis=2)
    expected = ~(no_worse & better).any(axis=0)
    np.testing.assert_array_equal(non_dominated(points), expected)


def test_front_of_nothing_is_nothing() -> None:
    assert non_dominated(np.empty((0, 2))).shape == (0,)
    assert non_dominated(np.empty((0, 3))).shape == (0,)


def test_hypervolume_by_hand() -> None:
    staircase = np.array([[1.0, 3.0], [2.0, 2.0], [3.0, 1.0]])  # to (4, 4): 3 + 2 + 1
    assert hypervolume_2d(staircase, (4.0, 4.0)) == 6.0
    with_more = np.concatenate([staircase, staircase, [[3.0, 3.0], [9.0, 0.0], [0.0, 4.0]]])
    assert hypervolume_2d(with_more, (4.0, 4.0)) == 6.0  # repeats, dominated, outside
    assert hypervolume_2d(staircase, (1.0, 1.0)) == 0.0


def test_hypervolume_of_a_quarter_circle() -> None:
    """The quarter disc of radius 1 around (1, 1): the area approaches pi / 4 from below.

    The staircase of n steps misses less than the sum of its step boxes, (pi / 2 / n)^2 * n.
    """
    n = 4000
    angle = np.linspace(0, np.pi / 2, n + 1)
    circle = np.stack([1 - np.sin(angle), 1 - np.cos(angle)], axis=1)
    area = hypervolume_2d(circle, (1.0, 1.0))
    assert np.pi / 4 - (np.pi / 2) ** 2 / n < area < np.pi / 4


def test_front_of_many_points_is_that_of_its_definition_in_2d() -> None:
    """More points than the sample that throws most of them out first; many ties."""
    points = np.random.default_rng(0).integers(300, size=(20_000, 2)).astype(float)
    by_x = points[np.lexsort((points[:, 1], points[:, 0]))]
    lowest, expected = np.inf, set()
    for x in np.unique(by_x[:, 0]):
        y = by_x[by_x[:, 0] == x, 1].min()
        if y < lowest:
            lowest = y
            expected.add((x, y))
    kept = non_dominated(points)
    assert set(map(tuple, points[kept].tolist())) == expected
    assert kept.sum() == sum(tuple(point) in expected for point in points.tolist())


def test_ranks_peel_fronts() -> None:
    points = np.random.default_rng(0).random((300, 2))
    found, rest, rank = ranks(points, len(points)), np.arange(len(points)), 0
    while len(rest):
        front = non_dominated(points[rest])
        assert (found[rest[front]] == rank).all()
        rest, rank = rest[~front], rank + 1
    some = ranks(points, 50)
    assert ((found < some.max()) == (some < some.max())).all()
    assert (found < some.max() - 1).sum() < 50 <= (found < some.max()).sum()


def test_crowding_by_hand() -> None:
    """Deb et al. 2002, figure 7: half the box around a point, as shares of the extents 4 and 8."""
    points = np.array([[0.0, 8.0], [1.0, 5.0], [2.0, 3.0], [4.0, 0.0]])
    np.testing.assert_allclose(crowding(points), [np.inf, 2 / 4 + 5 / 8, 3 / 4 + 5 / 8, np.inf])
    assert crowding(np.empty((0, 2))).shape == (0,)
