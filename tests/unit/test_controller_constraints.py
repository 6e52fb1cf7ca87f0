"""Limits, feasibility, and the answer to impossible constraints."""

from __future__ import annotations

import re

import numpy as np
import pytest

from hwnas.controller.constraints import _descend, metric_key, price, ratios, reach, resolve
from hwnas.controller.sections import SearchConfig
from hwnas.core.config import build_model
from hwnas.core.errors import UserError
from hwnas.interfaces import Constraint, FloatArray
from hwnas.spaces import REGISTRY as SPACES
from hwnas.spaces import mobilenet_tiny
from hwnas.spaces.cost import cost
from hwnas.spaces.load import build_space
from hwnas.spaces.space import Codes
from tests.mobile_spaces import NEEDS

SPACE = mobilenet_tiny.build(mobilenet_tiny.Config(resolutions=(16, 20)), num_classes=10)


class Analytic:
    """An analytic cost as a CostMetric."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, codes: Codes) -> FloatArray:
        return cost(SPACE, codes, self.name).astype(np.float64)  # type: ignore[arg-type]


METRICS = {"macs": Analytic("macs"), "params": Analytic("params")}


def test_fractions_are_of_the_largest_arch_priced_alike() -> None:
    largest = SPACE.codes([SPACE.largest()])
    absolute, fraction, everything = resolve(
        [
            Constraint("params", max=5e4),
            Constraint("macs", max_fraction_of_largest=0.25),
            Constraint("macs", max_fraction_of_largest=1.0),
        ],
        METRICS,
        SPACE,
    )
    assert absolute.max == 5e4
    assert fraction.max == 0.25 * cost(SPACE, largest, "macs")[0]
    over = ratios([fraction, everything], price(METRICS, largest), 1)
    np.testing.assert_array_equal(over, [[4.0, 1.0]])  # the largest meets a fraction of 1


def test_latency_is_keyed_by_device_and_macs_are_not() -> None:
    assert metric_key(Constraint("latency_p95_ms", device="phone", max=1)) == "latency_p95_ms@phone"
    assert metric_key(Constraint("macs", device="phone", max=1)) == "macs"


def test_a_metric_without_price_names_the_way_to_get_one() -> None:
    with pytest.raises(UserError, match=r"latency_ms@phone[\s\S]*hwnas profile phone"):
        resolve([Constraint("latency_ms", device="phone", max=1.0)], METRICS, SPACE)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0, -1.0])
def test_prices_that_are_no_prices_are_refused(bad: float) -> None:
    with pytest.raises(UserError, match="broken"):
        price({"broken": lambda codes: np.full(len(codes), bad)}, SPACE.codes([SPACE.largest()]))  # type: ignore[dict-item]


def test_tight_but_possible_constraints_are_reached() -> None:
    smallest = SPACE.codes([SPACE.smallest()])
    exact = Constraint("macs", max=float(cost(SPACE, smallest, "macs")[0]))
    limits = resolve([exact], METRICS, SPACE)
    assert (ratios(limits, price(METRICS, reach(SPACE, METRICS, limits, seed=0)), 1) <= 1).all()


class Hidden:
    """A price whose least arch is in the middle of the space: distance to one random arch."""

    name = "macs"

    def __init__(self) -> None:
        self.center = SPACE.sample(1, rng=np.random.default_rng(7))

    def __call__(self, codes: Codes) -> FloatArray:
        return np.asarray(1.0 + (codes != self.center).sum(axis=1))


def test_descent_finds_an_arch_that_is_not_the_smallest() -> None:
    metric = Hidden()
    limits = resolve([Constraint("macs", max=1.0)], {"macs": metric}, SPACE)
    np.testing.assert_array_equal(reach(SPACE, {"macs": metric}, limits, seed=0), metric.center)


class Deep:
    """A price that only the depth of stage 1 lowers."""

    name = "macs"

    def __call__(self, codes: Codes) -> FloatArray:
        column = [choice.name for choice in SPACE.choices].index("stage1.depth")
        return np.asarray(2.0 - (codes[:, column] == 1))


def test_choices_that_become_active_take_allowed_codes() -> None:
    """Depth 2 wakes block 1, whose kernel may only be 5; the price is the same either way."""
    space = SPACE.restrict(
        {choice.name: choice.values[:1] for choice in SPACE.choices}
        | {"stage1.depth": (1, 2), "stage1.block1.kernel": (5,)}
    )
    found = _descend(space, Deep(), space.codes([space.smallest()]))
    assert space.validate(found).all()
    assert space.view(space.arch(found[0]))["stage1.depth"] == 2


@pytest.mark.parametrize("restricted", [False, True])
def test_an_impossible_constraint_names_the_nearest_arch(restricted: bool) -> None:
    """It is found among a few thousand archs: the space has millions."""
    narrowed = {"stage1.depth": (2, 3), "stage1.block1.kernel": (5,)} if restricted else {}
    space = SPACE.restrict(narrowed)
    floor = cost(space, space.codes([space.smallest()]), "macs")[0]  # costs grow in every choice
    limits = resolve([Constraint("macs", max=floor * 0.9)], METRICS, space)
    n_priced = 0

    def macs(codes: Codes) -> FloatArray:
        nonlocal n_priced
        n_priced += len(codes)
        return METRICS["macs"](codes)

    with pytest.raises(UserError) as caught:
        reach(space, {**METRICS, "macs": macs}, limits, seed=0)
    assert n_priced < 20_000 < space.size()
    text = str(caught.value)
    assert f"nearest reachable arch has macs {floor:.6g}" in text
    assert f"stage1.depth={2 if restricted else 1}" in text
    assert f"allow macs up to {floor:.6g}" in text


class Opposed(Analytic):
    """A price that falls as MACs grow: no arch is cheap in both."""

    def __call__(self, codes: Codes) -> FloatArray:
        return np.asarray(1e12 / super().__call__(codes))


def test_contradictory_constraints_say_what_each_reaches_alone() -> None:
    metrics = {"macs": Analytic("macs"), "latency_ms@odd": Opposed("macs")}
    largest = float(metrics["latency_ms@odd"](SPACE.codes([SPACE.largest()]))[0])
    constraints = [
        Constraint("macs", max_fraction_of_largest=0.05),
        Constraint("latency_ms", device="odd", max=largest * 1.05),
    ]
    with pytest.raises(UserError) as caught:
        reach(SPACE, metrics, resolve(constraints, metrics, SPACE), seed=0)
    assert caught.value.fix is not None
    assert f"(without the other limits, {largest:.6g} is possible)" in caught.value.fix
    assert "macs" in caught.value.fix


def test_config_reads_plain_data_and_refuses_double_bounds() -> None:
    data = {"metric": "latency_ms", "device": "local", "max_fraction_of_largest": 0.4}
    config = build_model(SearchConfig, {"constraints": [data]}, where="test")
    assert config.constraints == (Constraint("latency_ms", max_fraction_of_largest=0.4),)
    with pytest.raises(UserError, match=r"one limit per metric[\s\S]*2 for latency_ms@local"):
        build_model(SearchConfig, {"constraints": [data, data | {"device": "local"}]}, where="t")
    with pytest.raises(UserError, match="name"):
        build_model(SearchConfig, {"name": "../elsewhere"}, where="test")


@pytest.mark.parametrize("name", [name for name in SPACES.names if name != "mobile"])
def test_an_impossible_limit_is_answered_by_few_prices_on_every_space(name: str) -> None:
    """All resolutions: 25 on mobilenet_v3."""
    space = build_space(name, NEEDS.get(name, {}), num_classes=10)

    n_priced = 0

    def macs(codes: Codes) -> FloatArray:
        nonlocal n_priced
        n_priced += len(codes)
        return cost(space, codes, "macs").astype(np.float64)

    def params(codes: Codes) -> FloatArray:
        return cost(space, codes, "params").astype(np.float64)

    some = space.sample(2000, rng=np.random.default_rng(0))
    lowest = min(macs(space.codes([space.smallest()]))[0], macs(some).min())
    limits = resolve(
        [Constraint("macs", max=0.5 * lowest), Constraint("params", max_fraction_of_largest=1.0)],
        {"macs": macs, "params": params},
        space,
    )
    n_priced = 0
    with pytest.raises(UserError) as caught:
        reach(space, {"macs": macs, "params": params}, limits, seed=0)
    assert n_priced < 30_000
    found = re.search(r"nearest reachable arch has macs ([\d.e+]+)", str(caught.value))
    assert found is not None
    assert 0.5 * lowest < float(found[1]) <= lowest * (1 + 1e-5)
    assert f"allow macs up to {found[1]}" in str(caught.value)
    assert "keep the limit of params" in str(caught.value)
