"""Statistics of raw samples, on numbers made up for each of them."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hwnas.core.errors import UserError
from hwnas.latency import samples as samples_module
from hwnas.latency.plan import PROTOCOL, Plan
from hwnas.latency.results import Turn, read_results
from hwnas.latency.samples import FEW_ITEMS, MAX_SLICES, Samples, Timing, read_samples
from tests.limits import bounded

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


# --- reading --------------------------------------------------------------------------------------


def turn(item: int, number: int, *ms: float, interrupted: tuple[int, ...] = ()) -> Turn:
    return Turn(number, item, tuple(round(1e6 * one) for one in ms), interrupted)


def read(monkeypatch: pytest.MonkeyPatch, *turns: Turn, n_items: int = 1) -> Samples:
    found = SimpleNamespace(turns=turns, header={"host": {}}, warnings=("said",))
    monkeypatch.setattr(samples_module, "read_results", lambda plan: found)
    return read_samples(Plan(Path("plan"), Path("results"), "", tuple(map(str, range(n_items)))))


def test_the_first_run_of_a_turn_is_cold(monkeypatch: pytest.MonkeyPatch) -> None:
    found = read(
        monkeypatch, turn(0, 0, 9, 2, 3), turn(1, 0, 8, 5), turn(0, 1, 7, 2.5), turn(1, 1, 6, 4, 1),
        n_items=2,
    )  # fmt: skip
    np.testing.assert_allclose(found.cold, [[9, 7], [8, 6]])
    np.testing.assert_allclose(found.hot, [[[2, 3], [2.5, np.nan]], [[5, np.nan], [4, 1]]])
    assert (found.ids, found.facts, found.warnings) == (("0", "1"), {"host": {}}, ("said",))


def test_interrupted_runs_count_only_where_no_other_is(monkeypatch: pytest.MonkeyPatch) -> None:
    found = read(
        monkeypatch,
        turn(0, 0, 9, 2, 3, interrupted=(0, 1)),
        turn(0, 1, 9, 2, 3, interrupted=(1, 2)),
        turn(0, 2, 9, 2, 3, interrupted=(2,)),
    )
    np.testing.assert_allclose(found.cold, [[np.nan, 9, 9]])
    np.testing.assert_allclose(found.hot, [[[np.nan, 3], [2, 3], [2, np.nan]]])


@pytest.mark.parametrize(("n", "is_enough"), [(1, False), (2, True)])
def test_every_item_needs_two_rounds(
    n: int, is_enough: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = [turn(0, r, 9, 2) for r in range(3)] + [turn(1, r, 9, 2) for r in range(n)]
    if is_enough:
        assert np.isfinite(read(monkeypatch, *turns, n_items=2).cold[1]).sum() == 2
    else:
        with pytest.raises(UserError, match="incomplete") as caught:
            read(monkeypatch, *turns, n_items=2)
        assert caught.value.found == "1 rounds of model 1"


def test_the_reference_is_the_median_of_its_fastest_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    found = read(
        monkeypatch,
        *(turn(0, number, 9, 2) for number in range(4)),
        turn(-1, 0, 1, 5, 4),  # the first is cold
        turn(-1, 0, 1, 6, 8),
        turn(-1, 1, 1, 3, 7, interrupted=(1,)),
        turn(-1, 3, 1, 3, 7, interrupted=(1, 2)),
    )
    np.testing.assert_allclose(found.reference, [5.0, 7.0, np.nan, 3.0])


def test_results_are_read_line_by_line(tmp_path: Path) -> None:
    """The first line already says that they are none; ten million lines would take a gigabyte."""
    path = tmp_path / "results"
    path.write_bytes(b"{}\n" * 10_000_000)
    plan = Plan(tmp_path / "plan", path, "", ("0",))
    with bounded(seconds=5, memory=1 << 28), pytest.raises(UserError, match="not from the kit"):
        read_samples(plan)


def test_results_that_are_too_large_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hwnas.latency.results.MAX_RESULTS_BYTES", 2**20)
    path = tmp_path / "results.jsonl"
    path.write_bytes(b" " * 3 * 2**20)
    with pytest.raises(UserError, match=r"too large\n[\s\S]*found: 3 MiB\n[\s\S]*fix: restore"):
        read_results(Plan(tmp_path / "plan", path, "", ("0",)))


@pytest.mark.parametrize(
    ("header", "turn", "place"),
    [
        ({"runtime": 1}, [0, 0, 5, 5], "runtime: a printable"),
        ({"host": {"cpu": 7}}, [0, 0, 5, 5], "host, cpu: a printable"),
        ({"host": {"cpu": "x", "cores": ["a"]}}, [0, 0, 5, 5], "host, cores: a whole"),
        ({}, [-1, 0, 5, 5], "turns, round: a whole"),
        ({}, [0, 9, 5, 5], "turns, item: a whole"),
        ({}, [0, 0, 5, 0], "turns, nanoseconds: a whole"),
    ],
)
def test_a_malformed_field_of_results_is_named(
    header: dict[str, object], turn: list[int], place: str, tmp_path: Path
) -> None:
    facts = dict.fromkeys(("runtime", "runtime_version", "provider", "precision"), "x")
    first = {"protocol": PROTOCOL, "plan_hash": "p", "interrupted_runs": "kept", **facts}
    lines = [{**first, "host": {"cpu": "x"}, **header}, {"turns": [turn], "preempted": []}]
    path = tmp_path / "results.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(UserError, match=f"malformed results\n  expected: {place}"):
        read_results(Plan(tmp_path / "plan", path, "p", ("0",)))
