"""Profiling end to end: exact on a machine without interactions, and for real on this one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hwnas.builders.onnx import network
from hwnas.core.errors import UserError
from hwnas.core.rng import rng
from hwnas.core.store import read_jsonl
from hwnas.devices.spec import load_device
from hwnas.interfaces import DeviceSpec
from hwnas.latency.correction import Correction
from hwnas.latency.estimator import TableEstimator
from hwnas.latency.sections import ProfileConfig
from hwnas.latency.table import LatencyTable
from hwnas.latency.validation import fit_quality
from hwnas.measure.networks import validation_nets
from hwnas.measure.profile import profile, time_models, time_networks
from hwnas.spaces.cost import cost, op_macs
from hwnas.spaces.index import enumerate_ops
from hwnas.spaces.lowering import lower, network_key
from hwnas.spaces.mobilenet_tiny import Config, build
from hwnas.spaces.space import SearchSpace
from tests.additive import additive_machine

DEVICE = DeviceSpec("board")
QUICK = ProfileConfig(rounds=6, min_rounds=2, hot_samples=4, n_validation=12)


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    """A handful of ops, some hundred archs."""
    whole = build(Config(resolutions=(16,)), num_classes=4)
    widths = {f"stage{s}.width": (width,) for s, width in enumerate((16, 32, 48))}
    expands = {f"stage{s}.block{b}.expand": (2,) for s in range(3) for b in range(3)}
    return whole.restrict({"stem.width": (8,), **widths, **expands})


def test_an_additive_device_is_forecast_exactly(space: SearchSpace, tmp_path: Path):
    table = profile(space, DEVICE, tmp_path, QUICK, transport=additive_machine(space))
    validation = table.corrections[space.id].validation
    assert validation.forecast.mape < 1e-4
    assert validation.raw_sum.mape < 1e-4
    codes = space.sample(20, rng=rng(1, "unseen"))
    expected = [
        0.02 + sum(0.01 + op_macs(op) * 1e-7 for op in lower(space, space.arch(c))) for c in codes
    ]
    forecast = TableEstimator(table, space).latency_ms(codes)
    np.testing.assert_allclose(forecast, expected, rtol=1e-3)
    assert table.source == "measured" and table.facts["cpu"] == "Fake 1"
    assert set(table.rows) == set(enumerate_ops(space))
    assert table.warnings == ()


def test_a_noisy_drifting_device_is_forecast_well(space: SearchSpace, tmp_path: Path):
    transport = additive_machine(
        space, noise=0.05, outliers=0.05, cold=1.5, drift=lambda t: 1 + 0.3 * (t * 1e-9 % 0.1)
    )
    table = profile(space, DEVICE, tmp_path, QUICK, transport=transport)
    forecast = table.corrections[space.id].validation.forecast
    assert forecast.mape < 0.02 and forecast.kendall_tau > 0.9


def test_intervals_hold_on_a_noisy_device(space: SearchSpace, tmp_path: Path):
    """300 forecasts of unseen networks by ten tables; noise, interruptions and drift included.

    Every network has 3 % of its own, which no table can know.
    """
    seen = {network_key(space, space.arch(c)) for c in validation_nets(space, 30, seed=0)}
    inside = []
    for draw in range(10):
        pool = space.sample(400, rng=rng(draw, "unseen"))
        keys = {network_key(space, space.arch(c)): i for i, c in enumerate(pool)}
        unseen = pool[[i for key, i in keys.items() if key not in seen][:30]]
        transport = additive_machine(
            space, quirk=0.03, nets=unseen, noise=0.02, outliers=0.05, cold=1.5, seed=draw,
            drift=lambda t: 1 + 0.1 * (t * 1e-9 % 0.1),
        )  # fmt: skip
        config = QUICK.model_copy(update={"n_validation": 30})
        folder = tmp_path / str(draw)
        table = profile(space, DEVICE, folder, config, transport=transport)
        found = time_networks(space, unseen, DEVICE, folder / "u", config, transport=transport)
        ms = np.array([timing.median_ms for timing in found.timings])
        low, high = TableEstimator(table, space).interval_ms(unseen).T
        inside.append((low <= ms) & (ms <= high))
    assert np.size(inside) >= 300 and 0.85 <= np.mean(inside) <= 0.95


def test_a_throttling_device_is_reported_with_its_table(
    space: SearchSpace, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """It begins when three of six rounds are over."""
    calm = tmp_path / "calm"
    all_rounds = QUICK.model_copy(update={"target_error": 0.0})
    profile(space, DEVICE, calm, all_rounds, transport=additive_machine(space))
    (results,) = calm.glob("*.jsonl")
    half_ns = 0.5e9 * sum(line.get("seconds", 0) for line in read_jsonl(results))
    transport = additive_machine(space, drift=lambda t_ns: 1 + 0.4 * (t_ns > half_ns))
    table = profile(space, DEVICE, tmp_path, all_rounds, transport=transport)
    (warning,) = table.warnings
    assert "slower while it was timed" in warning and warning in caplog.text
    assert warning.endswith("or another program that keeps running")
    table.save(tmp_path / "t.json")
    assert LatencyTable.load(tmp_path / "t.json").warnings == table.warnings
    assert table.corrections[space.id].validation.forecast.mape < 0.03  # and divided out


def test_a_finished_profile_is_rebuilt_without_timing(space: SearchSpace, tmp_path: Path):
    transport = additive_machine(space, noise=0.05)
    first = profile(space, DEVICE, tmp_path, QUICK, transport=transport)
    n_runs = transport.runs
    assert profile(space, DEVICE, tmp_path, QUICK, transport=transport) == first
    assert transport.runs == n_runs
    other = profile(space, DEVICE, tmp_path, QUICK, transport=transport, seed=1)
    assert transport.runs > n_runs and other != first  # another plan: other orders and weights


def test_validation_nets_are_distinct_and_cover_the_whole_range(tiny_space: SearchSpace):
    nets = validation_nets(tiny_space, 30, seed=0)
    assert (nets == validation_nets(tiny_space, 30, seed=0)).all()
    keys = {network_key(tiny_space, tiny_space.arch(row)) for row in nets}
    assert len(keys) == 30
    ends = [list(tiny_space.smallest().codes), list(tiny_space.largest().codes)]
    assert nets[:2].tolist() == ends
    macs = np.sort(np.log(cost(tiny_space, nets, "macs")))
    assert np.diff(macs).max() < 3 * (macs[-1] - macs[0]) / 29


def test_a_small_space_gives_all_its_networks(space: SearchSpace):
    depths = {f"stage{s}.depth": (1,) for s in range(3)}
    tiny = space.restrict(depths | {f"stage{s}.block0.kernel": (3,) for s in (1, 2)})
    assert tiny.size() == 2
    assert len(validation_nets(tiny, 30, seed=0)) == 2


def test_networks_are_timed_without_ops(space: SearchSpace, tmp_path: Path):
    nets = validation_nets(space, 5, seed=0)
    found = time_networks(space, nets, DEVICE, tmp_path, QUICK, transport=additive_machine(space))
    expected = [
        0.02 + sum(0.01 + op_macs(op) * 1e-7 for op in lower(space, space.arch(c))) for c in nets
    ]
    np.testing.assert_allclose([t.median_ms for t in found.timings], expected, rtol=1e-4)
    np.testing.assert_allclose(found.halves[0], expected, rtol=1e-4)


def test_retiming_finds_the_machine_slower_than_it_was(space: SearchSpace, tmp_path: Path):
    table = profile(space, DEVICE, tmp_path / "p", QUICK, transport=additive_machine(space))
    model = tmp_path / "winner.onnx"
    model.write_bytes(network(lower(space, space.largest())).SerializeToString())
    slower = additive_machine(space, slow=1.07, noise=0.01)
    quick = QUICK.model_copy(update={"retiming_budget_s": 0.5})
    pruned = space.restrict({"stage0.depth": (2,)})
    found = time_models(
        {"winner": model},
        DEVICE,
        tmp_path / "t",
        quick,
        table=table,
        space=pruned,
        transport=slower,
    )
    assert found.pace == pytest.approx(1.07, rel=0.01)
    assert found.noise == max(found.repeat_mape, found.pace_spread) < 0.01
    assert found.models["winner"].median_ms == pytest.approx(0.123 * 1.07, rel=0.01)
    assert found.repeat_noise["winner"] < 0.01 and found.repeat_mape < 0.01
    alone = time_models({"winner": model}, DEVICE, tmp_path / "a", quick, transport=slower)
    assert alone.pace is None and alone.pace_spread == 0.0
    elsewhere = replace(table, corrections={})  # nothing of this space was timed for it
    found = time_models(
        {"winner": model},
        DEVICE,
        tmp_path / "e",
        quick,
        table=elsewhere,
        space=pruned,
        transport=slower,
    )
    assert found.pace is None and set(found.models) == {"winner"}
    uneven = replace(table, corrections={space.id: _uneven(table.corrections[space.id], 0.1)})
    found = time_models(
        {"winner": model},
        DEVICE,
        tmp_path / "u",
        quick,
        table=uneven,
        space=pruned,
        transport=slower,
    )
    assert 0.03 < found.noise == found.pace_spread  # far more than what repeats within the run


TIMES = ("measured_ms", "forecast_ms")


def _uneven(correction: Correction, share: float) -> Correction:
    """As if the table's networks had been timed on a machine that is off by so much, up or down."""
    nets = sorted(correction.validation.nets, key=lambda net: net.measured_ms)
    nets = [
        replace(net, measured_ms=net.measured_ms * (1 + share * (-1) ** i))
        for i, net in enumerate(nets)
    ]
    measured, estimated = (np.array([getattr(net, name) for net in nets]) for name in TIMES)
    quality = fit_quality(estimated, measured)
    validation = replace(correction.validation, nets=tuple(nets), forecast=quality)
    return replace(correction, validation=validation)


def test_missing_models_are_refused(space: SearchSpace, tmp_path: Path):
    with pytest.raises(UserError, match="the file of the model 'winner' is missing"):
        time_models({"winner": tmp_path / "none.onnx"}, DEVICE, tmp_path, QUICK)


def test_this_machine_is_profiled_and_retimed(space: SearchSpace, tmp_path: Path):
    """The real kit in its own process. Loose bounds: tests share the machine with others."""
    few = space.restrict({"stage1.depth": (1,), "stage2.depth": (1,)})
    config = ProfileConfig(rounds=8, min_rounds=2, hot_samples=8, n_validation=8)
    config = config.model_copy(update={"retiming_budget_s": 0.3})
    device = load_device("local")
    table = profile(few, device, tmp_path / "p", config)
    table.save(tmp_path / "local.json")
    table = LatencyTable.load(tmp_path / "local.json")
    assert table.corrections[few.id].validation.forecast.mape < 0.3
    arch = few.largest()
    model = tmp_path / "largest.onnx"
    model.write_bytes(network(lower(few, arch), batch=None, seed=3).SerializeToString())
    found = time_models({"largest": model}, device, tmp_path / "t", config, table=table, space=few)
    forecast = TableEstimator(table, few).latency_ms(few.codes([arch]))[0]
    assert found.pace is not None and 0.5 < found.pace < 2
    at_table_speed = found.models["largest"].median_ms / found.pace  # as `Timings` says
    assert forecast == pytest.approx(at_table_speed, rel=0.4)
