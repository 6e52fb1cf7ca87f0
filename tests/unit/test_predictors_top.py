"""Quality at the top: numbers by definition, on rankings that are known."""

from __future__ import annotations

import numpy as np
import pytest

from hwnas.core.rng import rng
from hwnas.predictors.top import TopQuality, top_quality

TRUTH = np.arange(100.0)


def test_a_perfect_and_a_reversed_ranking() -> None:
    assert top_quality(TRUTH, TRUTH) == TopQuality(1, 1, 1.0, 0.0)
    assert top_quality(-TRUTH, TRUTH) == TopQuality(100, 91, 0.0, 99.0)


def test_numbers_equal_their_definitions() -> None:
    stream = rng(0, "test/top")
    predicted, truth = stream.normal(size=(2, 57))
    best = sorted(range(57), key=lambda row: -predicted[row])[:10]
    ranks = {row: 1 + sum(truth > truth[row]) for row in range(57)}
    found = top_quality(predicted, truth)
    assert found.n_at_1 == ranks[best[0]]
    assert found.n_at_10 == min(ranks[row] for row in best)
    assert found.precision_at_10 == np.mean([ranks[row] <= 10 for row in best])
    assert found.regret == max(truth) - truth[best[0]]


def test_a_constant_finds_nothing() -> None:
    """Whatever the order of the file is."""
    for order in (slice(None), slice(None, None, -1)):
        assert top_quality(np.zeros(100), TRUTH[order]) == TopQuality(100, 91, 0.0, 99.0)


@pytest.mark.parametrize("n", [1, 2, 9])
def test_fewer_than_ten_archs(n: int) -> None:
    found = top_quality(-np.arange(n), np.arange(n))
    assert found == TopQuality(n, 1, 1.0, n - 1.0)


def test_archs_that_tie_with_the_tenth_belong_to_the_top() -> None:
    truth = np.repeat([1.0, 0.0], [30, 70])
    assert top_quality(truth, truth) == TopQuality(1, 1, 1.0, 0.0)
