"""Closing on the device, on a device whose true latencies the table misjudges in a known way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hwnas.controller.controller import run_search
from hwnas.controller.remeasure import Closing, close_on_devices
from hwnas.controller.result import SearchResult
from hwnas.controller.sections import SearchConfig
from hwnas.interfaces import Constraint, CostMetric, FloatArray, SearcherContext
from hwnas.latency.estimator import TableEstimator
from hwnas.latency.samples import Timing
from hwnas.latency.table import LatencyTable
from hwnas.latency.validation import features, fit_correction
from hwnas.searchers import evolution
from hwnas.spaces import mobilenet_tiny
from hwnas.spaces.cost import cost, op_macs
from hwnas.spaces.index import enumerate_ops
from hwnas.spaces.ops import OpSpec
from hwnas.spaces.space import Codes

SPACE = mobilenet_tiny.build(mobilenet_tiny.Config(resolutions=(16,)), num_classes=10)
GOLDEN = Path(__file__).parent.parent / "golden" / "latency_table_v1.json"


def exactly(ms: float) -> Timing:
    return Timing(ms, ms, ms, ms, 1)


def sums(codes: Codes, rows: Mapping[OpSpec, Timing]) -> FloatArray:
    return features(rows, SPACE, codes)["scale"]


def table() -> LatencyTable:
    """Rows in proportion to MACs, and a correction fitted on networks without any error."""
    rows = {op: exactly(1e-3 + op_macs(op) / 1e6) for op in enumerate_ops(SPACE)}
    nets = SPACE.sample(np.random.default_rng(0), 12)
    truth = sums(nets, rows)
    correction = fit_correction(rows, SPACE, nets, [exactly(ms) for ms in truth], (truth, truth))
    return replace(LatencyTable.load(GOLDEN), rows=rows, corrections={SPACE.id: correction})


def predict(codes: Codes) -> tuple[FloatArray, FloatArray]:
    """More is better, and it matters where: the search has something to trade off."""
    weights = np.random.default_rng(1).random((len(SPACE.choices), 3)).cumsum(axis=1)
    chosen = weights[np.arange(codes.shape[1]), codes] * SPACE.active(codes)
    return np.asarray(chosen.sum(axis=1)), np.zeros(len(codes))


def close(
    factor: float, folder: Path, *, max_rounds: int = 4, fraction: float = 0.5
) -> tuple[SearchResult, Closing, list[Codes]]:
    """Every network takes `factor` times its row sum, which the correction thinks is 1."""
    base, timed = table(), []
    name = base.device.name
    config = SearchConfig(
        constraints=(Constraint("latency_ms", name, max_fraction_of_largest=fraction),),
        n_predictions=1280,
        generation_size=64,
    )
    (largest,) = TableEstimator(base, SPACE).latency_ms(SPACE.codes([SPACE.largest()]))
    limit = Constraint("latency_ms", name, max=fraction * float(largest))

    def search(latencies: Mapping[str, CostMetric], number: int) -> SearchResult:
        return run_search(
            SPACE,
            evolution.build(evolution.Config(), SearcherContext(SPACE, 0)),
            predict=predict,
            metrics={f"latency_ms@{device}": metric for device, metric in latencies.items()},
            config=config.model_copy(update={"constraints": (limit,)}),
            seed=0,
            folder=folder / str(number),
        )

    def retime(device: str, codes: Codes, number: int) -> FloatArray:
        timed.append(codes)
        return factor * sums(codes, base.rows)

    result, closing = close_on_devices(
        SPACE, {name: base}, search, retime, n_retimed=3, max_rounds=max_rounds
    )
    return result, closing, timed


def test_a_true_table_closes_in_one_round(tmp_path: Path) -> None:
    result, closing, timed = close(1.0, tmp_path)
    assert closing.met and closing.n_rounds == 1
    assert len(timed) == 1 and len(timed[0]) == 3
    assert result.winner.arch in [one.arch for one in closing.retimed]


def test_a_flattering_table_is_taught_until_the_winner_fits(tmp_path: Path) -> None:
    """15 % too slow: the first winner misses its limit, the last one meets it, both by timing."""
    result, closing, timed = close(1.15, tmp_path)
    name = table().device.name
    assert closing.met and closing.n_rounds > 1
    first = [one for one in closing.retimed if one.round == 0]
    assert all(one.measured_ms > one.limit_ms for one in first[:1])
    (winner,) = [one for one in closing.retimed if one.arch == result.winner.arch]
    assert winner.measured_ms <= winner.limit_ms
    # the search's own price of the winner is what was measured
    codes = SPACE.codes([result.winner.arch])
    assert winner.measured_ms == pytest.approx(1.15 * sums(codes, table().rows)[0])
    assert result.limits[f"latency_ms@{name}"] == winner.limit_ms
    archs = [tuple(row) for codes in timed for row in codes.tolist()]
    assert len(archs) == len(set(archs))  # nothing is timed twice


@pytest.mark.parametrize("max_rounds", [1, 4])
def test_it_says_that_it_cannot(max_rounds: int, tmp_path: Path) -> None:
    """Ten times slower than thought: nothing that was timed fits, and no winner is invented.

    The timings teach that no arch can keep the limit: there are no four rounds.
    """
    result, closing, _ = close(10.0, tmp_path, max_rounds=max_rounds)
    assert not closing.met and closing.n_rounds <= min(2, max_rounds)
    n_timed = 3 * closing.n_rounds
    assert f"none of {n_timed} timings met its limit: the closest took" in closing.reason
    assert ("no arch of the space meets the constraints" in closing.reason) == (max_rounds > 1)
    assert all(one.measured_ms > one.limit_ms for one in closing.retimed)
    assert result.winner.arch in [one.arch for one in closing.retimed]
    assert int(cost(SPACE, SPACE.codes([result.winner.arch]), "macs")[0]) > 0
