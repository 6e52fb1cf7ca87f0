"""Acquisitions against closed forms and sampling."""

from __future__ import annotations

from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest

from hwnas.acquisitions import exploration, hypervolume, mean, thompson
from hwnas.core.pareto import hypervolume_2d
from hwnas.testing.acquisitions import prospects

N_QUANTILES = 500


def test_expected_hypervolume_is_the_mean_growth_over_the_quantiles_of_a_score() -> None:
    given = prospects(n=6, m=8)
    values = hypervolume.build(hypervolume.Config())(given)
    known = np.stack([given.known_cost, -given.known], axis=1)
    reference = (max(given.cost.max(), given.known_cost.max()), -float(given.known.min()))
    before = hypervolume_2d(known, reference)
    quantiles = [NormalDist().inv_cdf((i + 0.5) / N_QUANTILES) for i in range(N_QUANTILES)]
    for i in range(6):
        growth = [
            hypervolume_2d(np.vstack([known, [given.cost[i], -score]]), reference) - before
            for score in given.mean[i] + given.std[i] * np.array(quantiles)
        ]
        assert values[i] == pytest.approx(np.mean(growth), rel=0.01, abs=1e-4)


def test_an_arch_that_is_dominated_for_certain_adds_nothing_to_the_hypervolume() -> None:
    given = replace(prospects(), std=np.full(40, 1e-9))
    given = replace(given, mean=np.full(40, given.known.min() - 1.0))
    np.testing.assert_allclose(hypervolume.build(hypervolume.Config())(given), 0, atol=1e-12)


def test_of_equal_predictions_the_cheaper_arch_adds_more_hypervolume() -> None:
    given = prospects()
    same = replace(given, mean=np.full(40, 1.0), std=np.full(40, 0.5))
    values = hypervolume.build(hypervolume.Config())(same)
    assert (np.diff(values[np.argsort(same.cost)]) <= 1e-12).all()


def test_exploration_adds_its_weight_of_the_deviation_to_the_mean() -> None:
    given = prospects()
    values = exploration.build(exploration.Config(weight=2.0))(given)
    np.testing.assert_allclose(values, given.mean + 2 * given.std)
    np.testing.assert_array_equal(mean.build(mean.Config())(given), given.mean)


def test_thompson_draws_have_the_predicted_distribution() -> None:
    given = prospects(n=2)
    draw = thompson.build(thompson.Config())
    draws = np.array([draw(given) for _ in range(4000)])
    np.testing.assert_allclose(draws.mean(axis=0), given.mean, atol=0.06)
    np.testing.assert_allclose(draws.std(axis=0), given.std, rtol=0.06)
    assert abs(np.corrcoef(draws.T)[0, 1]) < 0.06


def test_every_nth_evaluation_goes_to_the_most_uncertain_arch() -> None:
    given = prospects()
    bound = exploration.build(exploration.Config(weight=2.0, uncertain_every=5))
    for n, values in ((4, given.mean + 2 * given.std), (5, given.std), (10, given.std)):
        known = replace(given, known=np.zeros(n), known_cost=np.zeros(n))
        np.testing.assert_array_equal(bound(known), values)
