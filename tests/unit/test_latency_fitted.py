"""Rows from whole networks: a known truth is found, nothing is free, outliers do not bend it."""

from __future__ import annotations

import numpy as np
import pytest

from hwnas.core.errors import UserError
from hwnas.core.rng import rng
from hwnas.core.stats import spearman
from hwnas.latency.fitted import HUBER, _solve, fit_rows, fit_table, starting_prices
from hwnas.spaces.cost import op_macs
from hwnas.spaces.index import enumerate_ops, op_counts
from hwnas.spaces.ops import OpSpec
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
    n_networks = [int(np.count_nonzero(column)) for column in counts.T]
    assert [rows[op].n for op in enumerate_ops(tiny_space)] == n_networks
    assert min(n_networks) < N
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
    with pytest.raises(UserError, match=rf"(?s)positive and finite.*found: 1 of {N} numbers"):
        fit_table(tiny_space, codes, counts, measured)
    with pytest.raises(UserError, match="too few"):
        fit_table(tiny_space, codes[:40], counts[:40], np.ones(40))


def test_starting_prices_are_linear_in_macs_and_pixels_moved(tiny_space: SearchSpace, codes: Codes):
    """Input, map between the convolutions before and after the stride, and output."""

    def pixels(op: OpSpec) -> int:
        before, after = op.in_hw**2, op.out_hw**2
        inside = op.mid_channels * before + op.mid_channels * after
        return op.in_channels * before + inside + op.out_channels * after

    ops = enumerate_ops(tiny_space)
    counts = op_counts(tiny_space, codes)
    truth = np.array([0.01 + 2e-7 * op_macs(op) + 1e-7 * pixels(op) for op in ops])
    np.testing.assert_allclose(starting_prices(ops, counts, counts @ truth), truth, rtol=1e-6)


@pytest.mark.parametrize("outlier", [1.0, 3.0])
def test_multiples_are_a_robust_ridge_regression(outlier: float):
    """At the solution, the weighted gradient of every multiple that is not at its bound is zero."""
    shares = rng(0, "shares").random((40, 3)) / 1.5
    shares[0] /= outlier
    strength = 0.3
    multiples, gram, noise = _solve(shares, strength)
    residuals = shares @ multiples - 1
    deviation = np.median(np.abs(residuals)) / 0.6745
    assert noise == pytest.approx(deviation**2)
    weight = np.minimum(1, HUBER * deviation / np.abs(residuals))
    assert (weight < 1).any() and (weight == 1).any()
    slope = shares.T @ (weight * residuals) + strength * (multiples - 1)
    np.testing.assert_allclose(slope, 0, atol=0.02)
    expected = (shares.T * weight) @ shares + strength * np.eye(3)
    np.testing.assert_allclose(gram, expected, rtol=0.02)
