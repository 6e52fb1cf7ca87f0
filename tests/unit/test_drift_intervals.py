"""Intervals hold after the machine has changed: four regimes on a simulated device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hwnas.core.rng import rng
from hwnas.core.stats import Z90
from hwnas.interfaces import DeviceSpec
from hwnas.latency.estimator import TableEstimator
from hwnas.latency.sections import ProfileConfig
from hwnas.latency.table import LatencyTable
from hwnas.measure.drift import widened
from hwnas.measure.networks import network_id, network_models, validation_nets
from hwnas.measure.profile import profile, time_models
from hwnas.spaces.lowering import network_key
from hwnas.spaces.mobilenet_tiny import Config, build
from hwnas.spaces.space import Codes, SearchSpace
from tests.additive import additive_machine

DEVICE = DeviceSpec("board")
CONFIG = ProfileConfig(
    rounds=10, min_rounds=2, hot_samples=4, n_validation=30, target_error=0.0, retiming_budget_s=0.1
)
N_TABLES, N_UNSEEN = 5, 30
PER_OCTAVE, TYPICAL_NS = 0.4, 150e3
"""Load slows a network down that much more if it is twice as large: it loses more of its caches."""


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    whole = build(Config(resolutions=(16,)), num_classes=4)
    widths = {f"stage{s}.width": (width,) for s, width in enumerate((16, 32, 48))}
    expands = {f"stage{s}.block{b}.expand": (2,) for s in range(3) for b in range(3)}
    return whole.restrict({"stem.width": (8,), **widths, **expands})


def unseen_nets(space: SearchSpace, draw: int) -> Codes:
    seen = {network_key(space, space.arch(c)) for c in validation_nets(space, 30, seed=draw)}
    pool = space.sample(400, rng=rng(draw, "unseen"))
    keys = {network_key(space, space.arch(c)): i for i, c in enumerate(pool)}
    return pool[[i for key, i in keys.items() if key not in seen][:N_UNSEEN]]


def sensitivity(true_ns: float) -> float:
    """Of a model to the load."""
    return max(0.1, 1 + PER_OCTAVE * float(np.log2(true_ns / TYPICAL_NS)))


def bursts(seed: int) -> Callable[[float], float]:
    """Load over time: a random level, 15 to 25 %, every 5 ms."""

    def load(t_ns: float) -> float:
        return 0.15 + 0.1 * float(rng(seed, "load", int(t_ns / 5e6)).random())

    return load


def in_regime(busy: bool, draw: int) -> dict[str, Any]:
    settings: dict[str, Any] = {"noise": 0.02, "outliers": 0.05, "cold": 1.5, "seed": draw}
    if busy:
        settings |= {"load": bursts(draw), "sensitivity": sensitivity}
    return settings


REGIMES = {
    "quiet, then quiet": (False, False, 1.0),
    "busy, then quiet": (True, False, 1.0),
    "quiet, then busy": (False, True, 1.0),
    "another clock": (False, False, 1.2),
}


def coverage(space: SearchSpace, regime: str, folder: Path) -> list[np.ndarray]:
    """Which networks that no table has seen lie in their interval, at the table's speed."""
    built_busy, checked_busy, clock = REGIMES[regime]
    inside = []
    for draw in range(N_TABLES):
        nets = unseen_nets(space, draw)
        known = np.concatenate([nets, validation_nets(space, 30, seed=draw)])
        at = folder / str(draw)
        built = additive_machine(space, quirk=0.03, nets=known, **in_regime(built_busy, draw))
        table = profile(space, DEVICE, at, CONFIG, seed=draw, transport=built)
        models = network_models(space, nets, DEVICE, seed=draw)
        later = additive_machine(
            space, clock, quirk=0.03, nets=known, **in_regime(checked_busy, 100 + draw)
        )
        timed = time_models(
            models, DEVICE, at / "later", CONFIG, table=table, space=space, transport=later
        )
        assert timed.pace is not None
        names = [network_id(space, row) for row in nets]
        ms = np.array([timed.models[name].median_ms for name in names]) / timed.pace
        estimator = TableEstimator(table, space)
        low, high = widened(
            estimator.latency_ms(nets), estimator.interval_ms(nets), timed.pace_spread
        ).T
        inside.append((low <= ms) & (ms <= high))
    return inside


@pytest.mark.parametrize("regime", [*REGIMES])
def test_nine_in_ten_networks_lie_in_their_interval(
    space: SearchSpace, regime: str, tmp_path: Path
):
    inside = coverage(space, regime, tmp_path)
    assert np.size(inside) >= N_TABLES * 25
    assert 0.85 <= np.mean(inside) <= 0.95


def test_a_table_keeps_the_pace_of_its_machine_and_widens_by_its_uncertainty(
    space: SearchSpace, tmp_path: Path
):
    """A clock that changes between two values, half of the time each."""
    steady = profile(space, DEVICE, tmp_path / "a", CONFIG, transport=additive_machine(space))
    assert set(steady.pace) == {1.0} and steady.pace_error == 0
    changing = additive_machine(space, drift=lambda t: 1 + 0.2 * (int(t / 20e6) % 2))
    table = profile(space, DEVICE, tmp_path / "b", CONFIG, transport=changing)
    assert 1 < len(table.pace) <= 20 and max(table.pace) > 1.05 * min(table.pace)
    codes = space.sample(5, rng=rng(0, "pace"))
    ms = TableEstimator(table, space).latency_ms(codes)
    half = TableEstimator(table, space).interval_ms(codes)[:, 1] / ms - 1
    own = table.corrections[space.id].interval_fraction
    assert half == pytest.approx(np.hypot(own, Z90 * table.pace_error)) and half.min() > own
    table.save(tmp_path / "t.json")
    assert LatencyTable.load(tmp_path / "t.json") == table
    unknown = replace(table, pace=())
    unknown.save(tmp_path / "u.json")
    assert '"pace"' not in (tmp_path / "u.json").read_text() and unknown.pace_error == 0


def test_unequal_slowdowns_widen_the_interval_of_a_check():
    """Networks of the table 1 % away from the pace on average: 1.645 % of half-width."""
    wide = widened(np.array([2.0]), np.array([[1.94, 2.06]]), 0.01)
    half = 2 * np.hypot(0.03, 0.016449)
    assert wide[0] == pytest.approx([2 - half, 2 + half], rel=1e-6)
    same = widened(np.array([2.0]), np.array([[1.94, 2.06]]), 0.0)
    assert same[0] == pytest.approx([1.94, 2.06])
    uneven = widened(np.array([2.0]), np.array([[1.0, 2.06]]), 0.01)  # each side has its own width
    assert uneven[0] == pytest.approx([2 - np.hypot(1.0, 0.032897), 2 + half], rel=1e-5)
    assert widened(np.array([2.0]), np.array([[0.0, 4.0]]), 0.01)[0, 0] == 0
