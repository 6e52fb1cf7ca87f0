"""Sessions of timings, joined at the pace of the first one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hwnas.latency.samples import Timing
from hwnas.measure.networks import network_id
from hwnas.measure.timed import LEAST_COMMON, Apart, NetworkTimings, Timed, facts_of
from hwnas.spaces.mobilenet_tiny import Config, build

HEADER = {
    "host": {"cpu": "A55", "os": "linux"},
    "runtime": "onnxruntime",
    "runtime_version": "1.20",
    "threads": 1,
}


def timing(ms: float, **more: Any) -> Timing:
    return Timing(ms, 0.9 * ms, 1.1 * ms, 1.2 * ms, 10, **more)


def session(first: int, last: int, factor: float = 1.0, **header: Any) -> Timed:
    """Models m0, m1, ... of 1, 2, ... ms on a machine that takes `factor` times as long."""
    ms = {f"m{i}": factor * (i + 1) for i in range(first, last)}
    timings = {name: timing(value, cold_ms=2 * value) for name, value in ms.items()}
    return Timed(
        timings=timings,
        halves={name: (0.99 * value, 1.01 * value) for name, value in ms.items()},
        header={**HEADER, **header},
        n_rounds=6,
        warnings=(f"said {factor}", "said always"),
        sessions=(timings,),
        over_time=(1.0, factor),
    )


def test_a_later_session_counts_at_the_pace_of_the_first() -> None:
    joined = session(0, 8).joined(session(2, 12, factor=1.2))
    assert joined.pace == pytest.approx(1.2) and joined.spread == pytest.approx(0)
    assert joined.kept == 8 and len(joined.sessions) == 2
    assert set(joined.timings) == {f"m{i}" for i in range(12)}
    for number in range(12):
        found, ms = joined.timings[f"m{number}"], number + 1
        for name, factor in (("median", 1), ("p10", 0.9), ("p90", 1.1), ("p95", 1.2), ("cold", 2)):
            assert getattr(found, f"{name}_ms") == pytest.approx(factor * ms, rel=1e-5)
        assert found.n == 10
        assert joined.halves[f"m{number}"] == pytest.approx((0.99 * ms, 1.01 * ms))
    assert joined.sessions[1]["m2"].median_ms == pytest.approx(3)
    assert joined.warnings == ("said 1.0", "said always", "said 1.2")
    assert joined.over_time == (1.0, 1.0, 1.0, 1.2)
    assert (joined.header, joined.n_rounds) == (HEADER, 6)


def test_known_timings_stay() -> None:
    first, later = session(0, 8), session(0, 8, factor=1.1)
    noisy = replace(later, timings=later.timings | {"m0": timing(2.0)})
    joined = first.joined(noisy)
    assert joined.pace == pytest.approx(1.1)  # a median
    assert joined.spread == pytest.approx(abs(2 / 1.1 - 1) / 8)
    assert joined.timings == first.timings and joined.halves == first.halves


def test_energy_and_unknown_cold_latencies_are_not_scaled() -> None:
    first, later = session(0, 6), session(0, 7, factor=1.1)
    later.timings["m6"] = timing(7.7, energy_mj=3.0)
    found = first.joined(later).timings["m6"]
    assert found.median_ms == pytest.approx(7.0) and found.cold_ms is None
    assert found.energy_mj == 3.0


@pytest.mark.parametrize(
    ("later", "why"),
    [
        (
            session(8 - LEAST_COMMON + 1, 12),
            f"the sessions have only {LEAST_COMMON - 1} models in common",
        ),
        (session(0, 8, host={"cpu": "A76"}), "cpu was A55, and is now A76"),
        (session(0, 8, runtime_version="1.21"), "runtime_version was 1.20, and is now 1.21"),
        (
            session(0, 8, factor=1.3),
            "the machine takes 1.30 times as long as in the earlier session",
        ),
        (
            session(0, 8, factor=0.7),
            "the machine takes 0.70 times as long as in the earlier session",
        ),
    ],
)
def test_sessions_that_cannot_be_compared(later: Timed, why: str) -> None:
    with pytest.raises(Apart) as caught:
        session(0, 8).joined(later)
    assert str(caught.value) == why
    session(0, 8).joined(session(8 - LEAST_COMMON, 12))


def test_models_can_be_left_out() -> None:
    joined = session(0, 8).joined(session(0, 8)).without({"m1", "unknown"})
    for names in (joined.timings, joined.halves, *joined.sessions):
        assert set(names) == {f"m{i}" for i in range(8)} - {"m1"}


def test_facts_name_sessions_if_there_are_several() -> None:
    one = {
        "cpu": "A55", "os": "linux", "runtime": "onnxruntime", "runtime_version": "1.20",
        "rounds": 6,
    }  # fmt: skip
    assert facts_of(session(0, 8)) == one
    two = facts_of(session(0, 8).joined(session(0, 9, factor=1.23456)))
    assert two == one | {
        "sessions": 2, "models_of_earlier_sessions": 8, "pace": 1.2346, "pace_spread": 0.0
    }  # fmt: skip


def test_timings_of_networks_are_in_their_order() -> None:
    space = build(Config(resolutions=(16,)), num_classes=10)
    nets = space.codes([space.largest(), space.smallest()])
    ms = {network_id(space, row): float(i + 1) for i, row in enumerate(nets)}
    timed = replace(
        session(0, 6),
        timings={name: timing(ms[name]) for name in reversed(ms)},
        halves={name: (ms[name] - 0.1, ms[name] + 0.1) for name in reversed(ms)},
    )
    found = NetworkTimings.of(timed, space, nets)
    assert [one.median_ms for one in found.timings] == [1.0, 2.0]
    np.testing.assert_allclose(found.halves, [[0.9, 1.9], [1.1, 2.1]])
    assert found.facts == facts_of(timed)
