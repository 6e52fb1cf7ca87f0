"""Latencies of cell spaces: values read late, and poolings that exports compute once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hwnas.core.rng import rng
from hwnas.interfaces import FloatArray
from hwnas.latency.correction import Correction
from hwnas.latency.estimator import TableEstimator
from hwnas.latency.samples import Timing
from hwnas.latency.table import LatencyTable
from hwnas.latency.together import LatenciesTogether
from hwnas.latency.validation import fit_correction, refit_correction
from hwnas.spaces.graphs import is_connected
from hwnas.spaces.index import enumerate_ops
from hwnas.spaces.load import build_space
from hwnas.spaces.lowering import lower
from hwnas.spaces.network import IMAGE
from hwnas.spaces.ops import OpSpec
from hwnas.spaces.space import Codes, SearchSpace

GOLDEN = Path(__file__).parent.parent / "golden" / "latency_table_v1.json"
MS_PER_MILLION = {"ms_per_million_late": 5.0, "ms_per_million_sums": 3.0}
OVERHEAD = 0.02


def connected(space: SearchSpace, n: int, seed: int) -> Codes:
    codes = space.sample(n, rng=rng(seed, "graphs"))
    return codes[is_connected(space, codes)]


def rows_of(space: SearchSpace) -> dict[OpSpec, Timing]:
    found = {}
    for op in enumerate_ops(space):
        ms = 0.004 + int(op.key[:6], 16) / 2**24 / 20
        found[op] = Timing(ms, ms, ms, ms, 1)
    return found


def true_ms(space: SearchSpace, rows: dict[OpSpec, Timing], codes: Codes) -> FloatArray:
    """A machine that runs the exported networks, step by step."""
    found = []
    for row in codes:
        net = lower(space, space.arch(row)).deployed()
        ms = OVERHEAD + sum(rows[op].median_ms for op in net.ops)
        newest, sizes = IMAGE, {IMAGE: net.ops[0].in_channels * net.ops[0].in_hw ** 2}
        for step in net.steps():
            op = step.op or net.ops[step.position]
            sizes[step.writes] = op.out_channels * op.out_hw**2
            late = sum(sizes[value] for value in step.reads if value != newest)
            summed = sizes[step.writes] * (step.op is None)
            ms += np.dot([*MS_PER_MILLION.values()], [late, summed]) / 1e6
            newest = step.writes
        found.append(ms)
    return np.array(found)


def corrected(space: SearchSpace, rows: dict[OpSpec, Timing]) -> Correction:
    codes = connected(space, 120, 0)
    ms = true_ms(space, rows, codes)
    return fit_correction(rows, space, codes, [Timing(t, t, t, t, 1) for t in ms], (ms, ms))


def table_of(space: SearchSpace, rows: dict[OpSpec, Timing], found: Correction) -> LatencyTable:
    return replace(LatencyTable.load(GOLDEN), rows=rows, corrections={space.id: found})


@pytest.mark.parametrize("name", ["nats_topology", "nats_size", "darts"])
def test_values_between_operators_and_repeated_poolings_are_found_in_timings(
    name: str, tmp_path: Path
) -> None:
    space = build_space(name, num_classes=10)
    rows = rows_of(space)
    found = corrected(space, rows)
    assert found.repeats_once
    if name == "nats_topology":  # elsewhere the terms are dependent
        coefficients = {term: found.coefficients[term] for term in MS_PER_MILLION}
        assert coefficients == pytest.approx(MS_PER_MILLION, rel=1e-3)
    table_of(space, rows, found).save(tmp_path / "table.json")
    fresh = connected(space, 60, 1)
    estimated = LatencyTable.load(tmp_path / "table.json").estimate(space, fresh).ms
    np.testing.assert_allclose(estimated, true_ms(space, rows, fresh), rtol=1e-3)


def test_prices_between_operators_are_kept_by_a_refit() -> None:
    space = build_space("nats_topology", num_classes=10)
    rows = rows_of(space)
    found, more = corrected(space, rows), connected(space, 20, 2)
    again = refit_correction(found, rows, space, more, 2 * true_ms(space, rows, more))
    assert again.repeats_once and again.coefficients["ms_per_million_late"] > 0


def test_each_correction_says_how_its_networks_compute_poolings() -> None:
    """Published timings are of networks that hwnas did not export."""
    space = build_space("nats_topology", num_classes=10)
    rows = rows_of(space)
    once = corrected(space, rows)
    tables = [table_of(space, rows, once), table_of(space, rows, replace(once, repeats_once=False))]
    estimators = [TableEstimator(table, space) for table in tables]
    codes = connected(space, 200, 3)
    alone = np.stack([one.latency_ms(codes) for one in estimators], axis=1)
    n_merged = np.array([len(net.live()) - len(net.deployed()) for net in nets(space, codes)])
    assert (alone[n_merged == 0, 0] == alone[n_merged == 0, 1]).all()
    assert (alone[n_merged > 0, 0] < alone[n_merged > 0, 1]).all() and (n_merged > 0).any()
    for columns in ([0], [1], [0, 1], [1, 0]):
        together = LatenciesTogether([estimators[column] for column in columns])(codes)
        np.testing.assert_allclose(together, alone[:, columns], rtol=1e-12)


def nets(space: SearchSpace, codes: Codes) -> list:
    return [lower(space, space.arch(row)) for row in codes]
