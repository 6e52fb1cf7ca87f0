"""Reward forms against their closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from hwnas.controller.reward import BARRIER_SLACK, RewardConfig, reward

Z = np.array([0.0, 1.0, -2.0])
RATIOS = np.array([[0.5, 0.9], [1.0, 1.0], [0.8, 2.0]])
FORMS = ("hard", "additive", "exponent", "log_barrier")


def test_additive_by_hand() -> None:
    config = RewardConfig(form="additive", weight=2.0, excess_weight=3.0)
    np.testing.assert_allclose(reward(config, Z, RATIOS), [-2.8, 1 - 4.0, -2 - 5.6 - 3.0])


def test_exponent_is_the_product_of_mnasnet() -> None:
    """exp(reward) = accuracy * prod (cost / limit)^w with w = alpha below the limit, beta above."""
    alpha, beta = -0.07, -1.0
    config = RewardConfig(form="exponent", weight=-alpha, excess_weight=alpha - beta)
    exponent = np.where(RATIOS <= 1, alpha, beta)
    product = np.exp(Z) * (RATIOS**exponent).prod(axis=1)
    np.testing.assert_allclose(np.exp(reward(config, Z, RATIOS)), product)


def test_log_barrier_inside_and_its_continuation() -> None:
    config = RewardConfig(form="log_barrier", weight=0.5, excess_weight=0.0)
    inside = np.array([[0.2], [0.5], [0.9]])
    np.testing.assert_allclose(reward(config, Z, inside), Z + 0.5 * np.log(1 - inside[:, 0]))
    # C1 at the switch, and linear with slope -weight / slack from there on.
    edge, step = 1 - BARRIER_SLACK, 1e-6
    around = np.array([[edge - step], [edge], [edge + step], [1.5], [2.5]])
    values = reward(config, np.zeros(5), around)
    slopes = np.diff(values) / np.diff(around[:, 0])
    np.testing.assert_allclose(slopes, -0.5 / BARRIER_SLACK, rtol=1e-3)


def test_hard_ranks_every_feasible_arch_above_every_infeasible_one() -> None:
    config = RewardConfig(form="hard")
    z = np.array([-50.0, 3.0, 50.0, 50.0])
    ratios = np.array([[1.0], [0.2], [1.001], [3.0]])
    values = reward(config, z, ratios)
    assert values[1] == 3.0
    assert values[1] > values[0] > values[2] > values[3]


@pytest.mark.parametrize("form", FORMS)
def test_more_cost_never_pays_and_excess_always_hurts(form: str) -> None:
    config = RewardConfig(form=form)  # type: ignore[arg-type]
    ratios = np.linspace(0.05, 3, 400)[:, None]
    values = reward(config, np.zeros(len(ratios)), ratios)
    assert np.isfinite(values).all()
    assert (np.diff(values) <= 0).all()
    assert (np.diff(values[ratios[:, 0] > 1]) < 0).all()


@pytest.mark.parametrize("form", FORMS)
def test_without_constraints_the_reward_is_the_score(form: str) -> None:
    config = RewardConfig(form=form)  # type: ignore[arg-type]
    np.testing.assert_array_equal(reward(config, Z, np.empty((3, 0))), Z)
