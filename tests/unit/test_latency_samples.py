"""Statistics of raw samples, on numbers made up for each of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hwnas.latency.samples import FEW_ITEMS, MAX_SLICES, Samples, Timing

ROUNDS, RUNS = 6, 8


def samples(hot: np.ndarray, **more: Any) -> Samples:
    """Of hot runs [items, rounds, runs] in ms; cold runs take three times the first hot one."""
    known: dict[str, Any] = {
        "ids": tuple(f"m{i}" for i in range(len(hot))),
        "cold": 3 * hot[:, :, 0],
        "hot": hot,
        "facts": {},
        "reference": np.ones(hot.shape[1]),
    }
    return Samples(**{**known, **more})


def steady(n_items: int) -> np.ndarray:
    """Item i takes i + 1 ms."""
    return np.broadcast_to(np.arange(1.0, n_items + 1)[:, None, None], (n_items, ROUNDS, RUNS))


SLOW = np.array([1.0, 1.0, 1.0, 2.0, 1.0, 1.5])
"""Slow-down of each round; its median is 1."""


@pytest.mark.parametrize("n_items", [FEW_ITEMS - 1, FEW_ITEMS])
def test_slow_rounds_are_divided_out(n_items: int) -> None:
    """By the reference, or by all items if there are enough of them."""
    is_few = n_items < FEW_ITEMS
    found = samples(
        steady(n_items) * SLOW[:, None], reference=0.2 * SLOW if is_few else np.full(ROUNDS, 7.0)
    )
    np.testing.assert_allclose(found.round_factors(), SLOW)
    np.testing.assert_allclose(found.fastest(), steady(n_items)[:, :, 0])
    for number, (name, timing) in enumerate(found.timings().items(), start=1):
        assert name == f"m{number - 1}" and timing.median_ms == timing.p10_ms == number
        assert timing.n == ROUNDS * RUNS and timing.cold_ms == 3 * number
    even, odd = found.halves()
    np.testing.assert_allclose(even, np.arange(1, n_items + 1))
    np.testing.assert_allclose(odd, np.arange(1, n_items + 1))


def test_rounds_without_a_reference_count_as_they_are() -> None:
    reference = np.where(np.arange(ROUNDS) == 3, np.nan, 0.2 * SLOW)
    expected = np.where(np.arange(ROUNDS) == 3, 1.0, SLOW)
    found = samples(steady(2) * SLOW[:, None], reference=reference).round_factors()
    np.testing.assert_allclose(found, expected)


def test_the_median_is_over_rounds_and_the_tail_over_settled_runs() -> None:
    hot = steady(1).copy()
    hot[0, :, -1] = 4.0  # one settled run of four in every round
    hot[0, :, 0] = 9.0  # runs before that do not count
    hot[0, :, 1] = 1.0 + 0.1 * np.arange(ROUNDS)
    hot[0, :, 2 : RUNS - 1] = np.maximum(hot[0, :, 1:2], 1.5)
    timing = samples(hot).timings()["m0"]
    fastest = 1.0 + 0.1 * np.arange(ROUNDS)
    p10, median, p90 = np.quantile(fastest, (0.1, 0.5, 0.9))
    assert timing.median_ms == pytest.approx(median)
    assert (timing.p10_ms, timing.p90_ms) == pytest.approx((p10, p90))
    assert timing.p95_ms == pytest.approx(4.0)
    assert timing.cold_ms == pytest.approx(27.0)


def test_even_and_odd_rounds_are_halves() -> None:
    hot = steady(1).copy()
    hot[0, 1::2] = 1.2
    even, odd = samples(hot).halves()
    assert (even, odd) == (pytest.approx([1.0]), pytest.approx([1.2]))


def test_the_pace_over_time_is_relative_to_its_median() -> None:
    reference = np.array([0.2, 0.2, np.nan, 0.246912, 0.2])
    found = samples(steady(1), reference=reference).pace()
    assert found == (1.0, 1.0, 1.2346, 1.0)
    assert samples(steady(1), reference=reference[1:3]).pace() == ()
    assert samples(steady(1), reference=reference[:2]).pace() == (1.0, 1.0)


def test_long_runs_show_a_few_slices_of_their_pace() -> None:
    reference = np.repeat(np.arange(1.0, MAX_SLICES + 1), 3)
    found = samples(steady(1), reference=reference).pace()
    median = (MAX_SLICES + 1) / 2
    np.testing.assert_allclose(found, np.arange(1, MAX_SLICES + 1) / median, atol=5e-5)


@pytest.mark.parametrize(
    "changed",
    [
        {"p10_ms": 1.1},
        {"p90_ms": 0.9},
        {"p95_ms": 0.9},
        {"median_ms": 0.0, "p10_ms": 0.0},
        {"p10_ms": -0.1},
        {"n": 0},
        {"cold_ms": 0.0},
        {"cold_ms": -1.0},
        {"energy_mj": 0.0},
        {"energy_mj": np.inf},
    ],
)
def test_timings_that_cannot_be_are_refused(changed: dict[str, float]) -> None:
    good = {"median_ms": 1.0, "p10_ms": 1.0, "p90_ms": 1.0, "p95_ms": 1.0, "n": 1}
    Timing(**good)  # type: ignore[arg-type]
    Timing(**good, cold_ms=1e-9, energy_mj=1e-9)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected"):
        Timing(**{**good, **changed})  # type: ignore[arg-type]
