"""Limits that hold with a probability, or on a share of several devices, cover what they state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import hwnas
from hwnas.controller.constraints import Limit, metric_key, ratios, resolve
from hwnas.controller.sections import SearchConfig
from hwnas.core.config import build_model, settled
from hwnas.core.errors import UserError
from hwnas.core.metrics import MetricKey
from hwnas.core.rng import rng
from hwnas.core.stats import conformal_quantile
from hwnas.interfaces import Constraint, DeviceSpec, FloatArray
from hwnas.latency.estimator import TableEstimator
from hwnas.latency.intervals import one_sided_share
from hwnas.pipeline.costs import cost_metrics, with_chances
from hwnas.spaces.cost import cost
from hwnas.spaces.space import Codes, SearchSpace

N_DEVICES, N_TIMED = 1500, 60
LATENCY = {"metric": "latency_ms"}
Errors = Callable[[np.random.Generator, int], FloatArray]

ERRORS: dict[str, Errors] = {
    "normal": lambda stream, n: stream.normal(size=n),
    "laplace": lambda stream, n: stream.laplace(size=n),
    "t with 5 degrees": lambda stream, n: stream.standard_t(5, size=n),
    "slower than estimated": lambda stream, n: 1 + stream.normal(size=n),
}


class Simulated:
    """A device of which 60 networks were timed, whose estimates err by random shares."""

    device = DeviceSpec("phone")

    def __init__(self, errors: FloatArray) -> None:
        nets = tuple(SimpleNamespace(measured_ms=1 + error, forecast_ms=1.0) for error in errors)
        self.correction: Any = SimpleNamespace(
            interval_fraction=conformal_quantile(errors, 0.9),
            validation=SimpleNamespace(nets=nets),
        )

    def latency_ms(self, codes: Codes) -> FloatArray:
        return 1 + codes @ np.sqrt(np.arange(1, codes.shape[1] + 1)) / 10

    def latency_p95_ms(self, codes: Codes) -> FloatArray:
        return 1.1 * self.latency_ms(codes)

    def interval_ms(self, codes: Codes) -> FloatArray:
        raise AssertionError("bounds are one-sided")

    def bound_ms(self, codes: Codes, probability: float) -> FloatArray:
        share = one_sided_share(self.correction, probability)
        return self.latency_ms(codes) * (1 + share * self.correction.interval_fraction)


@pytest.mark.parametrize("errors", ERRORS)
@pytest.mark.parametrize("probability", [0.9, 0.99])
def test_a_limit_holds_with_its_probability(
    errors: str, probability: float, tiny_space: SearchSpace
) -> None:
    """The largest arch that meets the limit, on 1,500 devices: within 3 points of the stated."""
    stream, draw = rng(0, "test/robust", errors), ERRORS[errors]
    codes = tiny_space.sample(100, rng=stream)
    held = []
    for _ in range(N_DEVICES):
        scale = stream.uniform(0.01, 0.05)
        device = Simulated(scale * draw(stream, N_TIMED))
        limit = Constraint("latency_ms", "phone", max=1.0, probability=probability)
        phones = {"phone": device}
        metrics = with_chances(cost_metrics(tiny_space, phones), [limit], phones)
        prices = metrics[metric_key(limit)](codes)
        limit = replace(limit, max=float(stream.choice(prices)))  # the winner is at its limit
        meets = ratios(resolve([limit], metrics, tiny_space), {metric_key(limit): prices}, 100) <= 1
        estimate = device.latency_ms(codes[meets[:, 0]]).max()
        held.append(estimate * (1 + scale * draw(stream, 1)[0]) <= limit.max)
    assert np.mean(held) == pytest.approx(probability, abs=0.03)
    if errors == "normal" and probability == 0.9:  # by the estimate alone it would be a half
        assert np.mean(held) > 0.8


@pytest.mark.parametrize("errors", [*ERRORS, "one far"])
@pytest.mark.parametrize("n_timed", [1, 2, 9, 60, 200])
def test_bounds_never_fall_with_the_probability(errors: str, n_timed: int) -> None:
    """Also beyond the quantiles that the timed networks have: 60 have none above 0.983."""
    if errors == "one far":
        found = np.append(0.01 * rng(2, "test/robust").normal(size=200), 0.5)[-n_timed:]
    else:
        found = 0.03 * ERRORS[errors](rng(2, "test/robust", errors), n_timed)
    device = Simulated(found)
    device.correction.interval_fraction = 0.05
    chances = [0.51, 0.6, 0.9, 0.95, 0.98, 0.983, 0.985, 0.99, 0.999]
    shares = [one_sided_share(device.correction, chance) for chance in chances]
    assert shares == sorted(shares)
    if 2 <= n_timed < 99:
        assert 0.05 * shares[-2] >= found.max()


@pytest.mark.parametrize("share", [1.0, 0.9, 0.7])
def test_limits_hold_on_a_share_of_the_devices(share: float) -> None:
    """Fifty simulated devices of unequal speed, whose estimates err by 3 %."""
    stream, n_devices = rng(1, "test/share"), 50
    shares = []
    for _ in range(200):
        speeds = np.exp(0.3 * stream.normal(size=n_devices))
        archs = (1 - 1e-9) / speeds  # ms on a device of speed 1: each is at the limit of one
        keys = [MetricKey("latency_ms", f"simulated-{i}") for i in range(n_devices)]
        costs = {key: archs * speed for key, speed in zip(keys, speeds, strict=True)}
        limits = [
            Limit(Constraint("latency_ms", k.device or "", max=1.0), k, 1.0, share) for k in keys
        ]
        feasible = (ratios(limits, costs, len(archs)) <= 1).all(axis=1)
        winner = archs[feasible].max()
        assert (winner * speeds <= 1).mean() == pytest.approx(share)  # by estimate, exactly
        truth = winner * speeds * (1 + 0.03 * stream.normal(size=n_devices))
        shares.append((truth <= 1).mean())
    assert np.mean(shares) == pytest.approx(share, abs=0.03)


def test_a_device_that_is_given_up_is_the_worst_one() -> None:
    """Of three devices two are needed; another kind of limit is never given up."""
    keys = [MetricKey("latency_ms", "a"), MetricKey("latency_p95_ms", "a")]
    keys += [MetricKey("latency_ms", "b"), MetricKey("latency_ms", "c"), MetricKey("macs")]
    costs = dict(zip(keys, np.array([[0.5], [3.0], [2.0], [0.9], [1.5]]), strict=True))
    metrics = [Constraint(k.metric, k.device or "local", max=1.0) for k in keys]  # type: ignore[arg-type]
    limits = [Limit(c, k, 1.0, share=0.6) for c, k in zip(metrics, keys, strict=True)]
    np.testing.assert_array_equal(ratios(limits, costs, 1), [[0.5, 1.0, 2.0, 0.9, 1.5]])
    strict = [Limit(c, k, 1.0) for c, k in zip(metrics, keys, strict=True)]
    np.testing.assert_array_equal(ratios(strict, costs, 1), [[0.5, 3.0, 2.0, 0.9, 1.5]])


def test_a_search_under_a_chance_limit_leaves_room() -> None:
    """With a shipped table: 95 of 100 networks are within a bound that the winner keeps."""
    space = hwnas.space("mobilenet_v3", resolutions=[128, 160])
    table = hwnas.latency_table("amd-epyc-2vcpu-mobilenet_v3")
    name = table.device.name
    largest = float(table.estimate(space, [space.largest()]).ms[0])
    key = f"latency_ms~0.95@{name}"

    def more(codes: Codes) -> FloatArray:
        return cost(space, codes, "macs").astype(np.float64)

    limits = {key: 0.4 * largest}
    best = hwnas.search(space, score=more, limits=limits, tables=[table], budget=300).winner
    estimator = TableEstimator(table, space)
    codes = space.codes([best.arch])
    bound, ms = float(estimator.bound_ms(codes, 0.95)[0]), float(estimator.latency_ms(codes)[0])
    assert best.costs[key] == pytest.approx(bound) and best.latency_ms[name] == pytest.approx(ms)
    assert ms < bound <= 0.4 * largest
    errors = [n.measured_ms / n.forecast_ms - 1 for n in estimator.correction.validation.nets]
    share = np.mean([error <= bound / ms - 1 for error in errors])
    assert 0.95 <= share < 1  # the width of this restricted space is that of its own table


@pytest.mark.parametrize(
    "constraints",
    [[LATENCY | {"max": 1.0, "probability": p}] for p in (0.5, 1.0, 0.0, 90.0)]
    + [
        [{"metric": "macs", "max": 1e6, "probability": 0.9}],
        [LATENCY | {"max": 4.0, "probability": 0.9}, LATENCY | {"max": 5.0, "probability": 0.99}],
        [LATENCY | {"max": 4.0, "probability": 0.9}, LATENCY | {"max": 5.0}],
    ],
)
def test_chances_that_are_none_and_contradictory_ones_are_refused(constraints: list) -> None:
    with pytest.raises(UserError):
        build_model(SearchConfig, {"constraints": constraints}, where="test")


def test_limits_of_earlier_versions_keep_their_hashes() -> None:
    plain = {"metric": "latency_ms", "device": "local", "max": 5.0}
    old = settled(build_model(SearchConfig, {"constraints": [plain]}, where="test"))
    assert old["constraints"] == [plain | {"max_fraction_of_largest": None}]
    assert "limits_met_on" not in old
    new = settled(
        build_model(SearchConfig, {"constraints": [plain | {"probability": 0.9}]}, where="test")
    )
    assert new["constraints"][0]["probability"] == 0.9


def test_keys_with_a_probability_are_read_back() -> None:
    key = metric_key(Constraint("latency_ms", "phone", max=1.0, probability=0.99))
    assert key == "latency_ms~0.99@phone" and MetricKey.parse(key) == key
    assert (key.base, key.probability, key.device) == ("latency_ms@phone", 0.99, "phone")
    assert key.is_latency and key.base.probability is None
    for wrong in ("latency_ms~x@phone", "latency_ms~0.3@phone", "macs~0.9", "latency_ms~0.9"):
        with pytest.raises(UserError):
            MetricKey.parse(wrong)
