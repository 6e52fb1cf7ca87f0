"""The least squares behind corrections, against scipy, and its information criterion."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import lsq_linear

from hwnas.core.rng import rng
from hwnas.latency.fitting import EXACT, _criterion, _least_squares


@pytest.mark.parametrize("overhead", [0.4, -0.4])
def test_coefficients_are_positive_except_for_the_overhead(overhead: float) -> None:
    stream = rng(0, "fitting")
    columns = stream.random((4, 30))
    columns[1] = (1 - overhead * columns[0] - 0.3 * columns[2] + 0.2 * columns[3]) / 2
    columns[1] += 0.02 * stream.normal(size=30)
    found, error = _least_squares(list(columns))
    bounds = [-np.inf, 0, 0, 0], np.inf
    oracle = lsq_linear(columns.T, np.ones(30), bounds, tol=1e-14)
    np.testing.assert_allclose(found, oracle.x, atol=1e-6)
    assert error == pytest.approx(2 * oracle.cost) and error > 0
    assert found[3] == 0 and found[0] * overhead > 0


def test_the_criterion_is_that_of_schwarz() -> None:
    """n ln(error / n) + k ln(n), whose error is never below a rounding error."""
    assert _criterion(0.5, 20, 3) == pytest.approx(20 * math.log(0.025) + 3 * math.log(20))
    assert _criterion(0.0, 20, 3) == pytest.approx(20 * math.log(EXACT) + 3 * math.log(20))
