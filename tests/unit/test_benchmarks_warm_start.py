"""How many labels of the target a warm start saves, on curves whose answer is known."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture(scope="module")
def warm_start() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
        from predictor_parts import warm_start

        yield warm_start


CURVE = {10: 0.4, 100: 0.6, 1000: 0.7}


@pytest.mark.parametrize(
    ("tau", "labels"),
    [
        (0.4, 10),
        (0.6, 100),
        (0.7, 1000),
        (0.5, 10**1.5),  # half way between 10 and 100 in log n
        (0.65, 10**2.5),
        (0.1, 10),  # the curve begins above it
        (0.71, None),  # never reached
    ],
)
def test_labels_that_reach_the_same_tau(
    warm_start: ModuleType, tau: float, labels: float | None
) -> None:
    found = warm_start.equal_labels(tau, CURVE)
    assert found == (labels if labels is None else pytest.approx(labels))


def test_the_first_size_counts_where_the_curve_falls_again(warm_start: ModuleType) -> None:
    assert warm_start.equal_labels(0.6, {10: 0.4, 100: 0.6, 1000: 0.5, 2000: 0.9}) == 100
    # 0.7 lies between the last two points only: half way between 1000 and 4000 in log n
    curve = {10: 0.4, 100: 0.6, 1000: 0.5, 4000: 0.9}
    assert warm_start.equal_labels(0.7, curve) == pytest.approx(2000)


def _cell(size: int, others: int, tau: float, **changed: Any) -> dict[str, Any]:
    key = {"test": "warm_start", "target": "cifar100", "predictor": "gcn", "seeds": 3}
    return key | {"size": str(size), "others": others, "kendall_tau_mean": tau} | changed


def test_curves_of_other_targets_predictors_and_seeds_are_not_mixed(
    warm_start: ModuleType,
) -> None:
    rows = [_cell(n, 0, tau) for n, tau in CURVE.items()]
    rows += [_cell(10, 0, 0.9, **other) for other in ({"target": "x"}, {"predictor": "gp"})]
    rows += [_cell(10, 0, 0.9, seeds=1), {"test": "ranks", "file": "x"}]
    rows += [_cell(10, 400, 0.65), _cell(20, 400, 0.8)]
    first, second = warm_start.saved(rows)
    assert first["equal_labels"] == pytest.approx(10**2.5)
    assert (first["tau"], first["tau_alone"]) == (0.65, 0.4)
    assert (second["equal_labels"], second["tau_alone"]) == (None, None)
    assert "null" in json.dumps(second, allow_nan=False)
