"""The Gaussian process on choices, or on the operators that run."""

from __future__ import annotations

import numpy as np
import pytest

from hwnas.core.rng import rng
from hwnas.core.stats import kendall_tau
from hwnas.interfaces import PredictorContext
from hwnas.predictors import gp
from hwnas.spaces.cost import cost
from hwnas.spaces.load import build_space


@pytest.fixture(scope="module")
def space():
    return build_space("nasbench201", num_classes=10)


@pytest.fixture(scope="module")
def codes(space):
    return space.sample(300, rng=rng(0, "test/gp"))


def score(space, codes):
    """The log of the parameters of the operators that run, and a penalty for the first choice."""
    live = codes.copy()
    names = [choice.name for choice in space.choices]
    none = space.choices[1].values.index("none")
    at = {name: names.index(name) for name in names}
    for reader, edges in (("edge01", ("edge12", "edge13")), ("edge02", ("edge23",))):
        live[(live[:, at[reader]] == none)[:, None] & np.isin(names, edges)] = none
    return np.log1p(cost(space, live, "params"))


def fitted(space, codes, **settings):
    predictor = gp.build(gp.Config(**settings), PredictorContext(space, 0))
    predictor.fit(codes, score(space, codes))
    return predictor


def test_an_operator_whose_input_is_missing_changes_nothing_but_choices(space, codes):
    none, conv = (space.choices[1].values.index(name) for name in ("none", "nor_conv_3x3"))
    first = codes[0].copy()
    first[1:] = (none, conv, none, conv, none, conv)  # nothing reaches node 1
    second = first.copy()
    second[5] = conv  # from node 1 to the output
    both = np.stack([first, second])
    alike, _ = fitted(space, codes[:40], features="operators").predict(both)
    assert alike[0] == alike[1]
    different, _ = fitted(space, codes[:40], features="choices").predict(both)
    assert different[0] != different[1]


def test_operators_rank_cells_better_than_choices(space, codes):
    few, rest = codes[:40], codes[40:]
    tau = {
        features: kendall_tau(
            fitted(space, few, features=features).predict(rest)[0], score(space, rest)
        )
        for features in ("choices", "operators")
    }
    assert tau["operators"] > tau["choices"] + 0.05, tau


def test_state_restores_operators(space, codes):
    known = fitted(space, codes[:40], features="operators")
    other = gp.build(gp.Config(features="operators"), PredictorContext(space, 1))
    other.load_state(known.state())
    for a, b in zip(known.predict(codes), other.predict(codes), strict=True):
        np.testing.assert_array_equal(a, b)
