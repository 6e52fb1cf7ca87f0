"""Prices of classifiers that were not timed, against closed forms, machines and real timings."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hwnas
from hwnas.latency.classifiers import EXPONENT_OF_MORE, price_classifiers
from hwnas.latency.samples import Timing
from hwnas.latency.table import LatencyTable
from hwnas.spaces.index import enumerate_ops
from hwnas.spaces.ops import OpSpec

POOL = OpSpec("pool", 64, 64, 4, 1)


def linear(inputs: int, outputs: int) -> OpSpec:
    return OpSpec("linear", inputs, outputs, 1, 1)


def exactly(ms: float, cold_ms: float | None = None) -> Timing:
    return Timing(ms, ms, ms, 2 * ms, 5, cold_ms)


def priced(
    rows: dict[OpSpec, Timing], op: OpSpec, *, rows_are_timed: bool = True
) -> tuple[OpSpec, Timing]:
    return price_classifiers(rows, [op], rows_are_timed=rows_are_timed)[op]


ROWS = {POOL: exactly(0.1, 0.2), linear(64, 1000): exactly(1.0, 3.0)}


def test_an_eighth_of_the_weights():
    """Half of the cheapest row is fixed, the rest falls as the power 4/3: 8^(4/3) = 16."""
    nearest, row = priced(ROWS, linear(64, 125))
    assert nearest == linear(64, 1000)
    assert row.median_ms == pytest.approx(0.05 + 0.95 / 16)
    assert row.cold_ms == pytest.approx(0.1 + 2.9 / 16)
    assert row.p10_ms == pytest.approx(1 / 64)  # nothing fixed, power 2
    assert row.p90_ms == pytest.approx(0.1 + 0.9 / 8**0.9)  # all of the cheapest row fixed
    assert row.p95_ms == pytest.approx(2 * row.median_ms)


def test_eight_times_the_weights():
    _, row = priced(ROWS, linear(64, 8000))
    assert row.median_ms == pytest.approx(0.05 + 0.95 * 8)
    assert row.cold_ms == pytest.approx(0.1 + 2.9 * 8)
    assert row.p10_ms == pytest.approx(0.1 + 0.9 * 8**0.9)
    assert row.p90_ms == pytest.approx(64)


def test_as_many_weights_cost_the_same_whatever_their_shape():
    _, row = priced(ROWS, linear(640, 100))
    assert (row.median_ms, row.p10_ms, row.p90_ms, row.cold_ms) == pytest.approx((1, 1, 1, 3))


def test_the_nearest_classifier_is_the_one_to_go_by():
    rows = ROWS | {linear(64, 10): exactly(0.2), linear(640, 100): exactly(7.0)}
    assert priced(rows, linear(64, 20))[0] == linear(64, 10)
    assert priced(rows, linear(64, 500))[0] == linear(64, 1000)  # as near as 640x100, other inputs
    assert priced(rows, linear(640, 50))[0] == linear(640, 100)


def test_a_row_inferred_from_networks_may_be_fixed_altogether():
    _, row = priced(ROWS, linear(64, 125), rows_are_timed=False)
    assert row.p90_ms == pytest.approx(1.0)
    assert row.median_ms == pytest.approx(0.5 + 0.5 / 16)


def test_what_is_timed_stays_and_nothing_else_is_priced():
    ops = [linear(64, 1000), POOL, OpSpec("pool", 8, 8, 4, 1)]
    assert price_classifiers(ROWS, ops, rows_are_timed=True) == {}
    no_classifier = {POOL: ROWS[POOL]}
    assert price_classifiers(no_classifier, [linear(64, 10)], rows_are_timed=True) == {}


def test_a_fixed_part_that_is_unknown_when_cold_counts_as_none():
    """Of twice the weights; the other rows have a fixed part of half the cheapest row."""
    known, wanted = linear(64, 1000), linear(64, 2000)
    for cold, fixed in ((None, 0.0), (0.2, 0.1)):
        rows = {POOL: exactly(0.1, cold), known: exactly(1.0, 3.0)}
        found = priced(rows, wanted)[1].cold_ms
        assert found == pytest.approx(fixed + (3.0 - fixed) * 2**EXPONENT_OF_MORE)


def test_rows_without_cold_timings_give_prices_without():
    rows = {POOL: exactly(0.1), linear(64, 1000): exactly(1.0)}
    assert priced(rows, linear(64, 125))[1].cold_ms is None


@settings(max_examples=200, derandomize=True)
@given(
    known=st.integers(2, 5000),
    wanted=st.integers(2, 5000),
    exponent=st.floats(0.9, 2),
    fixed=st.floats(0, 1),
    per_weight=st.floats(1e-9, 1e-5),
)
def test_the_range_holds_the_truth_of_every_machine_of_the_model(
    known: int, wanted: int, exponent: float, fixed: float, per_weight: float
):
    """A machine with a fixed cost up to its cheapest operator, and any exponent of the range."""
    cheapest = 0.01

    def true_ms(op: OpSpec) -> float:
        return fixed * cheapest + per_weight * (op.in_channels * op.out_channels) ** exponent

    at, op = linear(64, known), linear(64, wanted)
    rows = {POOL: exactly(cheapest), at: exactly(max(true_ms(at), cheapest))}
    if true_ms(at) < cheapest or at == op:
        return
    _, row = priced(rows, op)
    assert row.p10_ms * (1 - 1e-9) <= true_ms(op) <= row.p90_ms * (1 + 1e-9)
    assert row.p10_ms <= row.median_ms <= row.p90_ms


# Measured with benchmarks/latency_subspaces.py --classifiers, a Xeon, ONNX Runtime 1.32, 1 thread;
# ms by number of classes, and the table's cheapest row on that machine.
CLASSES = (10, 50, 100, 200, 500, 1000, 2000, 4000)
MEASURED_MS = {
    ("fp32", 512): (0.0038, 0.00443, 0.0054, 0.00702, 0.01288, 0.04257, 0.14771, 0.29783),
    ("fp32", 1280): (0.00491, 0.00638, 0.00872, 0.01473, 0.08069, 0.18986, 0.36779, 0.71192),
    ("fp32", 1504): (0.00517, 0.00684, 0.00974, 0.01728, 0.1049, 0.22381, 0.42854, 0.83126),
    ("int8", 512): (0.00457, 0.00779, 0.01195, 0.01981, 0.04787, 0.12655, 0.34057, 0.66435),
    ("int8", 1280): (0.00609, 0.01427, 0.02392, 0.04866, 0.18498, 0.4227, 0.81713, 2.13064),
    ("int8", 1504): (0.00649, 0.01572, 0.02687, 0.05672, 0.23612, 0.48996, 0.95409, 3.09372),
}
CHEAPEST_MS = 0.0067


def test_real_classifiers_lie_in_the_range_and_near_the_price():
    inside, misses = [], []
    for (_, inputs), times in MEASURED_MS.items():
        known = linear(inputs, 1000)
        thousand = times[CLASSES.index(1000)]
        rows = {POOL: exactly(CHEAPEST_MS), known: exactly(thousand)}
        for n, ms in zip(CLASSES, times, strict=True):
            if n == 1000:
                continue
            _, row = priced(rows, linear(inputs, n))
            inside.append(row.p10_ms <= ms <= row.p90_ms)
            misses.append(abs(row.median_ms - ms) / max(ms, thousand))
    assert np.mean(inside) >= 0.9
    assert np.median(misses) < 0.05  # of the classifier, which is itself a few percent of a network


@pytest.mark.parametrize(("outputs", "is_useless"), [(3, False), (6, False), (1000, True)])
def test_an_estimate_that_hangs_on_the_untimed_classifier_says_so(
    caplog: pytest.LogCaptureFixture, outputs: int, is_useless: bool
) -> None:
    """A table for 3 classes and the default of 1,000: ten times as slow, and the note tells why."""
    known = hwnas.latency_table("amd-epyc-2vcpu-mobilenet_v3")
    timed, wanted = (
        hwnas.space("mobilenet_tiny", resolutions=[16], num_classes=n) for n in (3, outputs)
    )
    rows = {op: exactly(0.004) for op in enumerate_ops(timed)}
    device = replace(known.device, name="simulated-board")
    table = LatencyTable(device, known.protocol, "simulated", {}, rows)
    shown = hwnas.space_show(wanted, table=table).to_dict()["latencies"][0]
    assert (shown["largest"] > 0.5) == is_useless
    assert (shown["classes"], shown["classes timed"]) == (outputs, [3])
    by_default = hwnas.space_show("mobilenet_tiny", table=table, settings={"resolutions": [16]})
    assert by_default.to_dict()["latencies"][0]["classes"] == 3
    hwnas.table_estimate(table, space=wanted)
    assert hwnas.table_estimate(table, space="mobilenet_tiny", resolutions=[16]).facts == {
        "space": timed.id,
        "correction": None,
    }
    notes = [record.getMessage() for record in caplog.records]
    assert len(notes) == (2 if is_useless else 0)
    assert all("outputs was never timed (only one with 3" in note for note in notes)
