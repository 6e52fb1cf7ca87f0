"""Measured latencies against their limits, in numbers and words."""

from __future__ import annotations

import pytest

from hwnas.measure.limits import timed_limits

IN_INTERVAL = ", but passes: the interval of its estimate allows 2.5000 ms"


@pytest.mark.parametrize(
    ("ms", "excess", "is_held", "relation"),
    [
        (1.9, -0.24, True, "is within the limit of 2.0000 ms"),
        (2.0, -0.2, True, "is within the limit of 2.0000 ms"),
        (2.4, -0.04, True, f"exceeds the limit of 2.0000 ms{IN_INTERVAL}"),
        (2.5, 0.0, True, f"exceeds the limit of 2.0000 ms{IN_INTERVAL}"),
        (2.6, 0.04, False, "exceeds the limit of 2.0000 ms"),
    ],
)
def test_limits_are_widened_by_a_factor(
    ms: float, excess: float, is_held: bool, relation: str
) -> None:
    (found,) = timed_limits({"latency_p95_ms": ms}, {"latency_p95_ms": 2.0}, widening=1.25)
    assert found.excess == pytest.approx(excess) and found.held is is_held
    assert str(found) == f"p95 latency {ms:.4f} ms {relation}"


def test_only_what_was_timed_and_has_a_limit_is_compared() -> None:
    timed = {"latency_ms": 1.0, "latency_p95_ms": 3.0}
    found = timed_limits(timed, {"latency_ms": 2.0, "latency_p95_ms": 2.0}, widening=1.0)  # type: ignore[arg-type]
    assert [(one.metric, one.held) for one in found] == [
        ("latency_ms", True), ("latency_p95_ms", False)
    ]  # fmt: skip
    assert str(found[0]) == "latency 1.0000 ms is within the limit of 2.0000 ms"
    assert timed_limits(timed, {"latency_ms": None}, widening=1.0) == ()  # type: ignore[arg-type]
    assert timed_limits({"latency_ms": None}, {"latency_ms": 2.0}, widening=1.0) == ()
