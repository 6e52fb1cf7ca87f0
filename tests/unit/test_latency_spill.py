"""Weights that do not fit a cache: found in timings, priced, stored; truths in closed form."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hwnas.core.errors import UserError
from hwnas.core.rng import rng
from hwnas.interfaces import FloatArray
from hwnas.latency.correction import Spill
from hwnas.latency.formula import Formula, spill_share
from hwnas.latency.samples import Timing
from hwnas.latency.table import LatencyTable
from hwnas.latency.validation import as_sums, fit_correction
from hwnas.spaces.cost import cost, op_params
from hwnas.spaces.index import enumerate_ops, op_sum
from hwnas.spaces.lowering import lower
from hwnas.spaces.ops import OpSpec
from hwnas.spaces.space import Codes, SearchSpace

GOLDEN = Path(__file__).parent.parent / "golden" / "latency_table_v1.json"
RATE = 3e6  # parameters per ms


def rows_of(space: SearchSpace) -> dict[OpSpec, Timing]:
    """Rows that weights and arithmetic decide by turns; the cold ones tell nothing."""
    found = {}
    for op in enumerate_ops(space):
        ms = 0.004 + int(op.key[:6], 16) / 2**24 / 200
        found[op] = Timing(ms, ms, ms, ms, 1, cold_ms=2 * ms)
    return found


def true_ms(space: SearchSpace, rows: dict[OpSpec, Timing], codes: Codes, cache: float) -> float:
    """A machine with a cache of so many parameters, from the network's operators one by one."""
    ops = lower(space, space.arch(codes)).ops
    hot = [rows[op].median_ms for op in ops]
    late = sum(max(op_params(op) / RATE - ms, 0) for op, ms in zip(ops, hot, strict=True))
    over = sum(map(op_params, ops)) / cache
    return 0.01 + sum(hot) + late / (1 + np.exp(-(over - 1) / 0.15))


@pytest.fixture
def measured(tiny_space: SearchSpace) -> tuple[dict[OpSpec, Timing], Codes, FloatArray, float]:
    rows, codes = rows_of(tiny_space), tiny_space.sample(60, rng=rng(0, "spill"))
    cache = float(np.median(cost(tiny_space, codes, "params")))
    return rows, codes, np.array([true_ms(tiny_space, rows, c, cache) for c in codes]), cache


def fitted(space: SearchSpace, rows: dict[OpSpec, Timing], codes: Codes, ms: FloatArray):
    timings = [Timing(t, t, t, t, 1) for t in ms]
    return fit_correction(rows, space, codes, timings, (ms, ms))


def test_the_cache_of_a_machine_is_found_and_priced(tiny_space: SearchSpace, measured, tmp_path):
    rows, codes, ms, cache = measured
    found = fitted(tiny_space, rows, codes, ms)
    assert found.spill is not None
    assert found.spill.params_cached == pytest.approx(cache, rel=0.15)
    assert found.validation.forecast.mape < 0.01
    without = Formula({k: v for k, v in found.coefficients.items() if k != "spill_scale"})
    additive = without.prices(rows, enumerate_ops(tiny_space)).of(tiny_space, codes)
    assert np.abs(additive / ms - 1).mean() > 0.03  # the last part is what makes it right

    table = replace(LatencyTable.load(GOLDEN), rows=rows, corrections={tiny_space.id: found})
    table.save(tmp_path / "table.json")
    again = LatencyTable.load(tmp_path / "table.json")
    fresh = tiny_space.sample(40, rng=rng(1, "spill"))
    truth = np.array([true_ms(tiny_space, rows, c, cache) for c in fresh])
    assert again.estimate(tiny_space, fresh).ms == pytest.approx(truth, rel=0.04)


def test_no_cache_is_taken_where_sums_say_it_all(tiny_space: SearchSpace, measured):
    rows, codes, *_ = measured
    archs = codes_of(tiny_space, codes)
    hot = np.array([sum(rows[op].median_ms for op in lower(tiny_space, a).ops) for a in archs])
    noise = 1 + 0.01 * rng(0, "noise").standard_normal(len(hot))
    found = fitted(tiny_space, rows, codes, (0.01 + hot) * noise)
    assert found.spill is None
    assert "spill_scale" not in found.coefficients


def codes_of(space: SearchSpace, codes: Codes):
    return [space.arch(row) for row in codes]


def test_few_networks_tell_of_no_cache(tiny_space: SearchSpace, measured):
    rows, codes, ms, _ = measured
    assert fitted(tiny_space, rows, codes[:20], ms[:20]).spill is None


def test_the_share_rises_from_nothing_to_all_around_the_cache():
    share = spill_share(Spill(1e6, 1e5), np.array([1e3, 1e6, 1e8]))
    assert share == pytest.approx([1 / (1 + np.exp(0.999 / 0.15)), 0.5, 1.0], rel=1e-9)
    assert (spill_share(Spill(0.0, 1e5), np.array([1.0, 1e9])) == 1).all()


def test_rows_without_cold_timings_are_counted(tiny_space: SearchSpace):
    ops = enumerate_ops(tiny_space)
    rows = {op: Timing(1.0, 1.0, 1.0, 1.0, 5, None if op == ops[0] else 2.0) for op in ops}
    with pytest.raises(UserError, match=rf"found: none in 1 of {len(ops)} rows, such as .*\n  fix"):
        Formula({"scale": 1.0, "cold_scale": 1.0}).prices(rows, ops)


def test_prices_without_a_cache_that_holds_anything_are_sums(tiny_space: SearchSpace, measured):
    """What the exact searcher needs, and one pass over the archs instead of three."""
    rows, codes, *_ = measured
    ops = enumerate_ops(tiny_space)
    prices = Formula({"scale": 1.0, "spill_scale": 1.0}, Spill(0.0, RATE)).prices(rows, ops)
    by_hand = [
        sum(max(rows[op].median_ms, op_params(op) / RATE) for op in lower(tiny_space, arch).ops)
        for arch in codes_of(tiny_space, codes)
    ]
    assert prices.of(tiny_space, codes) == pytest.approx(by_hand, rel=1e-9)


def test_a_searcher_that_needs_sums_gets_sums(tiny_space: SearchSpace, measured):
    """Found with `exact`: after profiling, training and labels its search could not begin."""
    rows, codes, ms, _ = measured
    found = fitted(tiny_space, rows, codes, ms)
    table = replace(LatencyTable.load(GOLDEN), rows=rows, corrections={tiny_space.id: found})
    sums = as_sums(table, tiny_space)
    correction = sums.corrections[tiny_space.id]
    assert found.spill and found.spill.params_cached
    assert correction.spill is None or not correction.spill.params_cached
    assert correction.interval_fraction > found.interval_fraction
    overhead = correction.coefficients["overhead_ms"]
    per_op = Formula(correction.coefficients, correction.spill).prices(
        rows, enumerate_ops(tiny_space)
    )
    assert sums.estimate(tiny_space, codes).ms == pytest.approx(
        overhead + op_sum(tiny_space, codes, per_op.full), rel=1e-9
    )
    assert as_sums(sums, tiny_space) is sums
    other = replace(table, corrections={"another-0": found})
    assert not as_sums(other, tiny_space).corrections["another-0"].spill.params_cached


@pytest.mark.parametrize(
    "wrong",
    [
        {"spill": None},
        {"spill": {"params_cached": -1.0, "params_per_ms": 1.0}},
        {"spill": {"params_cached": 1.0, "params_per_ms": 0.0}},
        {"spill": {"params_cached": 1e13, "params_per_ms": 1.0}},
        {"spill": {"params_cached": 1.0}},
    ],
)
def test_a_table_with_an_impossible_cache_is_refused(tiny_space, measured, tmp_path, wrong):
    rows, codes, ms, _ = measured
    found = fitted(tiny_space, rows, codes, ms)
    table = replace(LatencyTable.load(GOLDEN), rows=rows, corrections={tiny_space.id: found})
    table.save(tmp_path / "table.json")
    data = json.loads((tmp_path / "table.json").read_text())
    data["corrections"][tiny_space.id] |= wrong
    (tmp_path / "table.json").write_text(json.dumps(data))
    with pytest.raises(UserError, match=r"spill|params"):
        LatencyTable.load(tmp_path / "table.json")
