"""From timings to rows, corrections and forecasts, against truths in closed form."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from hwnas.core.errors import UserError
from hwnas.core.rng import rng, stable_seed
from hwnas.interfaces import DeviceSpec
from hwnas.latency.construction import borders, context_id, contexts, op_id, op_rows
from hwnas.latency.estimator import TableEstimator
from hwnas.latency.samples import Timing
from hwnas.latency.table import Correction, LatencyTable
from hwnas.latency.validation import fit_correction
from hwnas.spaces.index import enumerate_ops, op_counts
from hwnas.spaces.lowering import lower
from hwnas.spaces.ops import OpSpec
from hwnas.spaces.space import Codes, SearchSpace

GOLDEN = Path(__file__).parent.parent / "golden" / "latency_table_v1.json"
SESSION_MS = 0.007


def exactly(ms: float) -> Timing:
    return Timing(ms, ms, ms, ms, 1)


def true_ms(op: OpSpec) -> float:
    """A made-up price of an op: anything positive that differs between ops."""
    return 0.001 + int(op.key[:6], 16) / 2**24 / 50


def neighbours_ms(border: tuple[int, int]) -> float:
    return 0.002 + border[0] * border[1] * 1e-6


def plan_timings(ops: tuple[OpSpec, ...]) -> dict[str, Timing]:
    """What a machine without any noise or interaction measures."""
    timings = {}
    for op in ops:
        around = sum(neighbours_ms(b) / 2 for b in borders(op) if b is not None)
        timings[op_id(op)] = exactly(SESSION_MS + true_ms(op) + around)
    for border in contexts(ops):
        timings[context_id(border)] = exactly(SESSION_MS + neighbours_ms(border))
    return timings


def rows_of(space: SearchSpace) -> dict[OpSpec, Timing]:
    ops = enumerate_ops(space)
    return op_rows(plan_timings(ops), ops)[0]


def table_of(space: SearchSpace, **changes: object) -> LatencyTable:
    return replace(LatencyTable.load(GOLDEN), rows=rows_of(space), corrections={}, **changes)


# --- rows ---------------------------------------------------------------------------------------


def test_rows_of_a_network_add_up_to_its_ops_and_one_session(tiny_space: SearchSpace):
    """Half of each border's context is taken off either side: what is left over is one session."""
    rows = rows_of(tiny_space)
    for codes in tiny_space.sample(20, rng=rng(0, "rows")):
        ops = lower(tiny_space, tiny_space.arch(codes))
        whole = SESSION_MS + sum(true_ms(op) for op in ops)
        assert sum(rows[op].median_ms for op in ops) == pytest.approx(whole, rel=1e-6)


def test_noise_never_makes_a_row_free_or_negative():
    op = OpSpec("pool", 8, 8, 4, 1)
    timings = plan_timings((op,)) | {op_id(op): Timing(0.001, 0.0005, 0.002, 0.003, 10)}
    rows, warnings = op_rows(timings, (op,))
    assert rows[op].median_ms == pytest.approx(1e-5)
    assert "pool 8>8" in warnings[0] and "noise" in warnings[0]
    clean_rows, none = op_rows(plan_timings((op,)), (op,))
    assert none == () and clean_rows[op].median_ms > 1e-3


def test_many_operators_lost_in_noise_are_one_warning():
    ops = tuple(OpSpec("pool", width, width, 4, 1) for width in range(8, 88, 8))
    noise = {op_id(op): Timing(0.001, 0.0005, 0.002, 0.003, 10) for op in ops}
    few, many = (op_rows(plan_timings(ops) | dict(list(noise.items())[:n]), ops)[1] for n in (3, 4))
    assert len(few) == 3 and all(str(op) in text for op, text in zip(ops, few, strict=False))
    (text,) = many
    assert text.startswith("4 of 10 operators: ") and "which is noise" in text
    assert all(str(op) in text for op in ops[:3]) and str(ops[3]) not in text


def test_a_row_keeps_the_spread_of_its_op_in_context():
    op = OpSpec("conv", 8, 8, 4, 4)
    whole = plan_timings((op,))[op_id(op)].median_ms
    spread = Timing(whole, whole - 0.0001, whole + 0.0002, whole + 0.0005, 10)
    row = op_rows(plan_timings((op,)) | {op_id(op): spread}, (op,))[0][op]
    assert row.median_ms - row.p10_ms == pytest.approx(0.0001, rel=1e-4)
    assert row.p90_ms - row.median_ms == pytest.approx(0.0002, rel=1e-4)
    assert row.p95_ms - row.median_ms == pytest.approx(0.0005, rel=1e-4)


def test_only_the_image_and_the_logits_have_no_neighbour(tiny_space: SearchSpace):
    ops = lower(tiny_space, tiny_space.largest())
    missing = [tuple(b is None for b in borders(op)) for op in ops]
    assert missing == [(True, False), *[(False, False)] * (len(ops) - 2), (False, True)]
    for first, second in pairwise(ops):
        assert borders(first)[1] == borders(second)[0]


# --- corrections --------------------------------------------------------------------------------


def sums(space: SearchSpace, codes: Codes) -> np.ndarray:
    rows = rows_of(space)
    return np.array([sum(rows[op].median_ms for op in lower(space, space.arch(c))) for c in codes])


def fit(space: SearchSpace, codes: Codes, measured: np.ndarray) -> Correction:
    timings = [Timing(ms, ms, ms, 1.2 * ms, 5) for ms in measured]
    return fit_correction(rows_of(space), space, codes, timings, (measured * 1.01, measured))


def test_a_line_is_recovered_exactly(tiny_space: SearchSpace):
    codes = tiny_space.sample(30, rng=rng(0, "line"))
    measured = 1.1 * sums(tiny_space, codes) + 0.02
    correction = fit(tiny_space, codes, measured)
    line = {"scale": 1.1, "overhead_ms": 0.02, "root_scale": 0.0}
    assert correction.coefficients == pytest.approx(line, abs=1e-6)
    assert correction.validation.forecast.mape < 1e-9
    assert correction.validation.forecast.kendall_tau == pytest.approx(1.0)
    assert correction.validation.within == (1.0, 1.0)
    assert correction.validation.repeat_mape == pytest.approx(0.01)
    raw = np.abs(sums(tiny_space, codes) / measured - 1)
    assert correction.validation.raw_sum.mape == pytest.approx(raw.mean())
    assert correction.validation.raw_sum.max == pytest.approx(raw.max())
    assert correction.validation.raw_sum.within_10 == (raw <= 0.1).mean() < 1
    assert correction.validation.macs_line.mape > 0.05
    assert correction.p95_factor == pytest.approx(1.2)
    assert correction.n_fit == 30


def test_beside_every_forecast_is_what_op_counts_alone_give(tiny_space: SearchSpace):
    """As by a forest that is fitted here: on the other folds' networks, in logarithms."""
    from sklearn.ensemble import RandomForestRegressor

    codes = tiny_space.sample(30, rng=rng(0, "forest"))
    measured = 1.1 * sums(tiny_space, codes) + 0.02
    forest = fit(tiny_space, codes, measured).validation.forest
    assert forest is not None
    counts = op_counts(tiny_space, codes)
    seed = stable_seed(0, "latency/forest") % 2**32
    by_size = np.argsort(measured)
    errors = np.empty(30)
    for first in range(10):
        inside = by_size[first::10]
        others = np.setdiff1d(np.arange(30), inside)
        model = RandomForestRegressor(50, max_features=1 / 3, random_state=seed)
        model.fit(counts[others], np.log(measured[others]))
        errors[inside] = np.abs(np.exp(model.predict(counts[inside])) / measured[inside] - 1)
    assert forest.mape == pytest.approx(errors.mean()) and forest.max == pytest.approx(errors.max())
    assert forest.mape > 0.02  # where the table's forecast is exact


def test_small_operators_may_cost_more_than_their_share(tiny_space: SearchSpace):
    """A price per op that grows as its square root beside its row, and savings common to all."""
    rows = rows_of(tiny_space)
    codes = tiny_space.sample(30, rng=rng(0, "root"))
    ops = [lower(tiny_space, tiny_space.arch(row)) for row in codes]
    roots = np.array([sum(np.sqrt(rows[op].median_ms) for op in net) for net in ops])
    measured = 1.1 * sums(tiny_space, codes) + 0.3 * roots - 0.05
    correction = fit(tiny_space, codes, measured)
    expected = {"scale": 1.1, "overhead_ms": -0.05, "root_scale": 0.3}
    assert correction.coefficients == pytest.approx(expected, abs=1e-6)
    table = replace(table_of(tiny_space), corrections={tiny_space.id: correction})
    forecast = TableEstimator(table, tiny_space).latency_ms(codes)
    np.testing.assert_allclose(forecast, measured, rtol=1e-6)


def test_a_forecast_is_never_negative(tiny_space: SearchSpace):
    codes = tiny_space.sample(20, rng=rng(0, "positive"))
    correction = replace(
        fit(tiny_space, codes, sums(tiny_space, codes)),
        coefficients={"scale": 1.0, "overhead_ms": -1e6},
    )
    table = replace(table_of(tiny_space), corrections={tiny_space.id: correction})
    low = TableEstimator(table, tiny_space).latency_ms(codes)
    np.testing.assert_allclose(low, 0.1 * sums(tiny_space, codes), rtol=1e-6)


def test_no_operator_is_fitted_to_save_time(tiny_space: SearchSpace):
    """Latency that falls as the sum rises: better a flat forecast than one that rewards work."""
    codes = tiny_space.sample(20, rng=rng(0, "negative"))
    line = sums(tiny_space, codes)
    correction = fit(tiny_space, codes, 2 * line.max() - line)
    assert correction.coefficients["scale"] == correction.coefficients["root_scale"] == 0


def test_validation_forecasts_have_not_seen_their_network(tiny_space: SearchSpace):
    """One outlier among exact nets: in-sample its forecast would be dragged towards it."""
    codes = tiny_space.sample(11, rng=rng(0, "outlier"))
    exact = sums(tiny_space, codes)
    order = np.argsort(exact)
    measured = exact.copy()
    measured[order[-1]] *= 1.5
    nets = fit(tiny_space, codes, measured).validation.nets
    assert nets[order[-1]].forecast_ms == pytest.approx(exact[order[-1]], rel=1e-5)
    assert nets[order[-1]].measured_ms == pytest.approx(measured[order[-1]])


def test_the_interval_covers_nine_in_ten_new_networks(tiny_space: SearchSpace):
    covered = []
    for draw in range(12):
        stream = rng(draw, "coverage")
        codes = tiny_space.sample(60, rng=stream)
        measured = 1.05 * sums(tiny_space, codes) * np.exp(0.03 * stream.standard_normal(60))
        correction = fit(tiny_space, codes[:30], measured[:30])
        table = table_of(tiny_space)
        table = replace(table, corrections={tiny_space.id: correction})
        low, high = TableEstimator(table, tiny_space).interval_ms(codes[30:]).T
        covered.append((low <= measured[30:]) & (measured[30:] <= high))
    assert 0.85 <= np.mean(covered) <= 0.95


def test_too_few_networks_are_refused(tiny_space: SearchSpace):
    codes = tiny_space.sample(3, rng=rng(0, "few"))
    with pytest.raises(UserError, match="too few networks") as caught:
        fit(tiny_space, codes, sums(tiny_space, codes))
    assert (caught.value.where, caught.value.fix) == (
        tiny_space.id,
        "allow more values in the space",
    )


# --- forecasts ----------------------------------------------------------------------------------


def test_a_forecast_is_the_corrected_sum_of_rows(tiny_space: SearchSpace):
    codes = tiny_space.sample(50, rng=rng(0, "forecast"))
    correction = fit(tiny_space, codes, 1.1 * sums(tiny_space, codes) + 0.02)
    table = replace(table_of(tiny_space), corrections={tiny_space.id: correction})
    estimator = TableEstimator(table, tiny_space)
    expected = 1.1 * sums(tiny_space, codes) + 0.02
    np.testing.assert_allclose(estimator.latency_ms(codes), expected, rtol=1e-6)
    np.testing.assert_allclose(estimator.latency_p95_ms(codes), 1.2 * expected, rtol=1e-6)
    assert estimator.device == DeviceSpec("simulated-golden", threads=2)
    assert estimator.interval_ms(codes).shape == (50, 2)


def test_a_correction_serves_a_pruned_space_too(tiny_space: SearchSpace):
    codes = tiny_space.sample(30, rng=rng(0, "pruned"))
    correction = fit(tiny_space, codes, 1.3 * sums(tiny_space, codes))
    table = replace(table_of(tiny_space), corrections={tiny_space.id: correction})
    pruned = tiny_space.restrict({"stage0.depth": (1, 2), "stem.width": (8,)})
    few = pruned.sample(10, rng=rng(1, "pruned"))
    expected = TableEstimator(table, tiny_space).latency_ms(few)
    np.testing.assert_allclose(TableEstimator(table, pruned).latency_ms(few), expected)


def test_without_a_correction_only_the_raw_sum_is_known(tiny_space: SearchSpace):
    codes = tiny_space.sample(5, rng=rng(0, "raw"))
    estimator = TableEstimator(table_of(tiny_space), tiny_space)
    np.testing.assert_allclose(estimator.latency_ms(codes), sums(tiny_space, codes), rtol=1e-6)
    for unknown in (estimator.latency_p95_ms, estimator.interval_ms):
        with pytest.raises(UserError, match="no correction"):
            unknown(codes)


def test_missing_ops_are_counted_named_and_come_with_the_command(tiny_space: SearchSpace):
    table = table_of(tiny_space)
    ops = enumerate_ops(tiny_space)
    incomplete = replace(table, rows={op: table.rows[op] for op in ops[5:]})
    with pytest.raises(UserError) as caught:
        TableEstimator(incomplete, tiny_space)
    text = str(caught.value)
    assert "5 operators missing" in text
    assert all(str(op) in text for op in ops[:3]) and str(ops[3]) not in text
    assert "hwnas profile simulated-golden --space mobilenet_tiny" in text


def test_operators_that_do_not_explain_whole_networks_are_an_error(tiny_space: SearchSpace):
    """A convex truth: a line through the larger networks is negative at the smallest one."""
    codes = tiny_space.sample(12, rng=rng(0, "odd"))
    sums = op_counts(tiny_space, codes) @ [true_ms(op) for op in enumerate_ops(tiny_space)]
    above = sums - sums.min()
    ms = 1e-6 + (above / above.max()) ** 3
    with pytest.raises(UserError, match=r"do not explain[\s\S]*n_validation"):
        fit_correction(rows_of(tiny_space), tiny_space, codes, [exactly(t) for t in ms], (ms, ms))
