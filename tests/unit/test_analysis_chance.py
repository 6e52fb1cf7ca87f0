"""Accuracies that guessing has as well are called so."""

from __future__ import annotations

import pytest
import scipy.stats

from hwnas.analysis.chance import at_least, chance_warning


@pytest.mark.parametrize(
    ("top1", "num_classes", "warned"),
    [
        ([(0.0, 150), (1 / 150, 150)], 1000, True),  # one of 150 is luck
        ([(0.0, 150), (3 / 150, 150)], 1000, False),  # three of 150 are not: 1 in 2,000
        ([(0.75, 150)], 1000, False),
        ([(0.52, 400)], 2, True),
        ([(0.66, 400)], 2, False),
        ([(0.11, 50_000)], 10, False),  # many images tell
        ([(1.0, 12)], 2, False),  # 12 coins that fall on one side: 1 in 4,096
        ([(11 / 12, 12)], 2, True),  # 1 in 315
        ([(1.0, 8)], 2, True),  # 8 coins: one of 256 runs that guess
        ([(5 / 6, 6)], 10, False),
        ([], 10, False),
    ],
)
def test_networks_that_only_guess_are_told(top1, num_classes: int, warned: bool):
    found = chance_warning(top1, num_classes)
    assert bool(found) is warned
    if warned:
        assert f"{max(top1)[0]:.2%}" in found and f"{1 / num_classes:.2%}" in found


@pytest.mark.parametrize(("k", "n", "p"), [(12, 12, 0.5), (3, 150, 1e-3), (5_200, 50_000, 0.1)])
def test_tails_are_those_of_scipy(k: int, n: int, p: float):
    assert at_least(k, n, p) == pytest.approx(scipy.stats.binom.sf(k - 1, n, p), rel=1e-6)
