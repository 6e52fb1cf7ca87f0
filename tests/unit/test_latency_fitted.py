"""Rows from whole networks: a known truth is found, nothing is free, outliers do not bend it."""

from __future__ import annotations

import numpy as np
import pytest

from hwnas.core.errors import UserError
from hwnas.core.rng import rng
from hwnas.core.stats import spearman
from hwnas.latency.fitted import fit_rows, fit_table, starting_prices
from hwnas.spaces.cost import op_macs
from hwnas.spaces.index import enumerate_ops, op_counts
from hwnas.spaces.space import Codes, SearchSpace

N = 1000


@pytest.fixture(scope="module")
def codes(tiny_space: SearchSpace) -> Codes:
    return tiny_space.sample(N, rng=rng(0, "fitted"))


@pytest.fixture(scope="module")
def true_rows(tiny_space: SearchSpace) -> np.ndarray:
    """MACs and a constant, each op off by its own factor."""
    ops = enumerate_ops(tiny_space)
    factors = np.exp(0.3 * rng(0, "factors").standard_normal(len(ops)))
    return factors * np.array([0.01 + 2e-7 * op_macs(op) for op in ops])


def test_networks_are_forecast_as_if_rows_were_known(
    tiny_space: SearchSpace, codes: Codes, true_rows: np.ndarray
):
    counts = op_counts(tiny_space, codes)
    truth = counts @ true_rows
    rows, correction = fit_table(tiny_space, codes, counts, truth)
    fit = correction.validation.forecast
    assert fit.mape < 0.02 and fit.kendall_tau > 0.97
    assert fit.mape < correction.validation.raw_sum.mape
    assert fit.mape < correction.validation.macs_line.mape / 3
    assert set(rows) == set(enumerate_ops(tiny_space))
    assert correction.n_fit == N and len(correction.validation.nets) == 60
    fresh = tiny_space.sample(200, rng=rng(1, "fitted"))
    fresh_truth = op_counts(tiny_space, fresh) @ true_rows
    prices = np.array([rows[op].median_ms for op in enumerate_ops(tiny_space)])
    errors = np.abs(op_counts(tiny_space, fresh) @ prices / fresh_truth - 1)
    assert errors.mean() == pytest.approx(fit.mape, rel=0.5)  # what validation promised


def test_the_interval_is_that_of_unseen_networks(
    tiny_space: SearchSpace, codes: Codes, true_rows: np.ndarray
):
    counts = op_counts(tiny_space, codes)
    noisy = counts @ true_rows * np.exp(0.05 * rng(0, "noise").standard_normal(N))
    rows, correction = fit_table(tiny_space, codes, counts, noisy)
    prices = np.array([rows[op].median_ms for op in enumerate_ops(tiny_space)])
    fresh = op_counts(tiny_space, tiny_space.sample(500, rng=rng(2, "fitted")))
    truth = fresh @ true_rows * np.exp(0.05 * rng(2, "noise").standard_normal(500))
    covered = np.abs(truth / (fresh @ prices) - 1) <= correction.interval_fraction
    assert 0.85 <= covered.mean() <= 0.95


def test_throttled_networks_do_not_bend_the_rows(
    tiny_space: SearchSpace, codes: Codes, true_rows: np.ndarray
):
    counts, ops = op_counts(tiny_space, codes), enumerate_ops(tiny_space)
    truth = counts @ true_rows
    throttled = truth * np.where(rng(0, "outliers").random(N) < 0.06, 2.5, 1.0)
    fitted, clean = (counts @ fit_rows(ops, counts, ms, 0.1).ms for ms in (throttled, truth))
    bend = np.median(np.abs(fitted / clean - 1))
    assert bend < 0.02  # a mean over networks would rise by 9 %
    assert spearman(fitted, truth) > 0.98


def test_nothing_is_free_even_where_the_networks_say_so(tiny_space: SearchSpace, codes: Codes):
    """Latency that falls as work rises: every row stays positive."""
    counts, ops = op_counts(tiny_space, codes), enumerate_ops(tiny_space)
    work = counts @ np.array([op_macs(op) for op in ops], dtype=float)
    upside_down = 2 * work.max() - work
    start = starting_prices(ops, counts, upside_down)
    assert (start > 0).all()
    assert (fit_rows(ops, counts, upside_down, 0.01).ms >= 0.0099 * start).all()


def test_a_row_that_few_networks_have_is_less_certain(
    tiny_space: SearchSpace, codes: Codes, true_rows: np.ndarray
):
    counts, ops = op_counts(tiny_space, codes), enumerate_ops(tiny_space)
    noisy = counts @ true_rows * np.exp(0.02 * rng(3, "noise").standard_normal(N))
    many = fit_rows(ops, counts, noisy, 0.1)
    few = fit_rows(ops, counts[:60], noisy[:60], 0.1)
    assert np.median(few.std_ms / few.ms) > np.median(many.std_ms / many.ms)


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), float("inf")])
def test_latencies_that_cannot_be_are_refused(tiny_space: SearchSpace, codes: Codes, bad: float):
    counts = op_counts(tiny_space, codes)
    measured = np.ones(N)
    measured[7] = bad
    with pytest.raises(UserError, match="positive and finite"):
        fit_table(tiny_space, codes, counts, measured)
    with pytest.raises(UserError, match="too few"):
        fit_table(tiny_space, codes[:40], counts[:40], np.ones(40))
