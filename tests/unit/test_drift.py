"""One drift policy: everything is judged at the table's speed, or not at all."""

from __future__ import annotations

import numpy as np
import pytest

from hwnas.latency.samples import Timing
from hwnas.measure.drift import can_judge, judge, verdict, worst
from hwnas.measure.limits import VerifyConfig
from hwnas.pipeline.device_checks import device_checks
from hwnas.pipeline.outcomes import Check, NetworkResult, Results
from hwnas.spaces.arch import Arch

ARCH = Arch("space", (0,))
CONFIG = VerifyConfig(max_forecast_error=0.05)


def result(
    estimate_ms: float, now_ms: float, pace: float | None, noise: float = 0.005
) -> NetworkResult:
    """A winner timed in `now_ms` on a machine of that pace, under a limit of 1 ms."""
    judged = judge(Timing(now_ms, now_ms, now_ms, 2 * now_ms, 10), estimate_ms, pace)
    return NetworkResult(
        name="winner",
        device="local",
        arch=ARCH,
        test_top1=0.9,
        n_test_images=100,
        macs=1,
        params=1,
        forecast_ms=estimate_ms,
        interval_ms=(0.95 * estimate_ms, 1.05 * estimate_ms),
        measured_ms=judged.median_ms,
        repeat_noise=noise,
        limit_ms=1.0,
        constraint_met=None,
        measured_p95_ms=judged.p95_ms,
        limit_p95_ms=2.0,
        pace=pace,
    )


def states(row: NetworkResult) -> list[bool | None]:
    return [check.passed for check in device_checks(row, CONFIG)]


@pytest.mark.parametrize("pace", np.linspace(0.8, 1.25, 10).tolist())
def test_the_verdict_does_not_depend_on_the_pace(pace: float) -> None:
    """Estimate, median and 95th percentile, at whatever speed the machine runs them."""
    assert states(result(1.0, 0.99 * pace, pace)) == [True, True, True]
    assert states(result(0.9, 0.99 * pace, pace)) == [False, True, True]
    assert states(result(1.0, 1.2 * pace, pace)) == [False, False, False]


@pytest.mark.parametrize("pace", [0.1, 0.79, 1.26, 1.65, 10.0])
def test_far_from_the_speed_of_the_table_nothing_is_judged(pace: float) -> None:
    assert states(result(1.0, pace, pace)) == [None, None, None]
    assert states(result(1.0, 3 * pace, pace)) == [None, None, None]
    (check, *_) = device_checks(result(1.0, pace, pace), CONFIG)
    assert check.state == "not judged" and f"takes {pace:.2f} times as long" in check.detail


def test_after_a_jump_no_wrong_estimate_is_accepted() -> None:
    """The tolerance used to widen with the drift: 1.65 accepted an estimate that is 130 % off."""
    assert states(result(2.3, 1.65, 1.65))[0] is None
    assert states(result(1.3, 1.2, 1.2))[0] is False  # 30 % off; 40 % were accepted


def test_without_networks_of_the_table_timings_count_as_they_are() -> None:
    row = result(1.0, 1.02, None)
    assert row.measured_ms == 1.02 and states(row) == [True, True, True]
    assert "pace is unknown" in device_checks(row, CONFIG)[0].detail
    assert can_judge(None)


@pytest.mark.parametrize(
    ("estimate_ms", "noise", "state"),
    [
        (0.96, 0.025, True),  # within 5 %, on a machine that repeats to 2.5 %
        (0.96, 0.026, None),  # no false PASS: the noise is as large as what is accepted
        (0.92, 0.01, False),  # 8 % off, known to 2 %
        (0.92, 0.02, None),  # no false FAIL: 8 % off, known to 4 %
        (0.80, 0.04, False),  # 20 % off is no noise
    ],
)
def test_noise_makes_neither_failures_nor_successes(
    estimate_ms: float, noise: float, state: bool | None
) -> None:
    (forecast, *_) = device_checks(result(estimate_ms, 1.0, 1.0, noise), CONFIG)
    assert forecast.passed is state
    said = f"repeat noise is {noise:.1%}; run again when it is idle" in forecast.detail
    assert said == (state is None)


@pytest.mark.parametrize(
    ("excess", "noise", "state"),
    [(-0.5, 0.4, True), (-0.3, 0.4, None), (0.3, 0.4, None), (0.5, 0.4, False), (0, 0.05, True)],
)
def test_what_is_far_from_its_bound_is_judged_whatever_the_noise(
    excess: float, noise: float, state: bool | None
) -> None:
    assert verdict(excess, None, noise=noise, most=0.05) is state
    assert verdict(excess, 1.3, noise=noise, most=0.05) is None


def test_a_failure_decides_and_then_what_is_open() -> None:
    assert worst([True, None, False]) is False and worst([True, None]) is None
    assert worst([True]) is True and worst([]) is True


def test_a_judgement_is_at_the_speed_of_the_table() -> None:
    judged = judge(Timing(1.2, 1.2, 1.2, 2.4, 10), 1.1, 1.2)
    assert judged.median_ms == pytest.approx(1.0) and judged.p95_ms == pytest.approx(2.0)
    assert judged.error == pytest.approx(0.1)
    assert judge(Timing(1, 1, 1, 1, 1), None, 1.0).error is None


def test_results_know_their_checks_by_state() -> None:
    checks = (Check("a", True, ""), Check("b", None, "why"), Check("c", False, ""))
    results = Results((), checks, {})
    assert [results.of(passed) for passed in (True, None, False)] == [(c,) for c in checks]
    assert checks[1].summary() == {"name": "b", "passed": None, "detail": "why"}
