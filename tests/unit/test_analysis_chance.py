"""Accuracies that guessing has as well are called so."""

from __future__ import annotations

import pytest

from hwnas.analysis.chance import chance_warning


@pytest.mark.parametrize(
    ("top1", "num_classes", "warned"),
    [
        ([(0.0, 150), (1 / 150, 150)], 1000, True),  # one of 150 is luck
        ([(0.0, 150), (3 / 150, 150)], 1000, False),  # three of 150 are not: 1 in 2,000
        ([(0.75, 150)], 1000, False),
        ([(0.52, 400)], 2, True),
        ([(0.66, 400)], 2, False),
        ([(0.11, 50_000)], 10, False),  # many images tell
        ([], 10, False),
    ],
)
def test_networks_that_only_guess_are_told(top1, num_classes: int, warned: bool):
    found = chance_warning(top1, num_classes)
    assert bool(found) is warned
    if warned:
        assert f"{max(top1)[0]:.2%}" in found and f"{1 / num_classes:.2%}" in found
