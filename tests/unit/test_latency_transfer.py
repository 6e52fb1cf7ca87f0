"""Prior over devices, choice of networks and forecast, against truths in closed form."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hwnas.core.errors import UserError
from hwnas.core.rng import rng
from hwnas.core.stats import spearman
from hwnas.latency.transfer import (
    DevicePrior,
    choose_networks,
    device_prior,
    fit_device,
    operator_similarity,
)
from hwnas.measure.published.networks import group_of, read_measurements
from hwnas.spaces.index import enumerate_ops, op_counts
from hwnas.spaces.space import SearchSpace

N_KNOWN = 6


@pytest.fixture(scope="module")
def counts(tiny_space: SearchSpace) -> np.ndarray:
    return op_counts(tiny_space, tiny_space.sample(300, rng=rng(0, "transfer")))


@pytest.fixture(scope="module")
def known_rows(tiny_space: SearchSpace) -> np.ndarray:
    """Devices between two extremes: priced by map size, and by channels."""
    ops = enumerate_ops(tiny_space)
    first = np.array([0.01 + 1e-4 * op.in_hw**2 for op in ops])
    second = np.array([0.01 + 1e-4 * op.out_channels * op.kernel for op in ops])
    shares = np.linspace(0, 1, N_KNOWN)
    return np.outer(first, shares) + np.outer(second, 1 - shares)


@pytest.fixture(scope="module")
def prior(tiny_space: SearchSpace, counts: np.ndarray, known_rows: np.ndarray) -> DevicePrior:
    groups = [f"device{i}" for i in range(N_KNOWN)]
    related = operator_similarity(enumerate_ops(tiny_space))
    return device_prior(counts, counts @ known_rows, groups, related, known_rows=known_rows)


def test_a_device_between_the_known_ones_is_found_from_ten_networks(
    prior: DevicePrior, counts: np.ndarray, known_rows: np.ndarray
):
    true_rows = 3.0 * (0.3 * known_rows[:, 0] + 0.7 * known_rows[:, -1])
    truth = counts @ true_rows
    timed = choose_networks(prior, 10)
    forecast = fit_device(prior, timed, truth[timed])
    assert np.abs(forecast.latency_ms / truth - 1).max() < 0.02
    nearest = min(
        np.abs(np.median(truth) / np.median(ms) * ms / truth - 1).max()
        for ms in (counts @ known_rows).T
    )
    assert nearest > 0.02  # no known device alone says as much


def test_rows_add_up_to_the_forecast(prior: DevicePrior, counts: np.ndarray):
    """Exactly, but for rows lifted to their least share."""
    truth = counts @ np.abs(np.sin(np.arange(counts.shape[1])) + 1.2)
    timed = choose_networks(prior, 10)
    forecast = fit_device(prior, timed, truth[timed])
    assert counts @ forecast.rows_ms == pytest.approx(forecast.latency_ms, rel=0.01)
    assert (forecast.rows_ms > 0).all() and (forecast.rows_std_ms > 0).all()


def test_intervals_cover_nine_in_ten(prior: DevicePrior, counts: np.ndarray):
    """Devices drawn from the prior itself, with 3 % of noise."""
    covered = []
    for draw in range(40):
        stream = rng(draw, "coverage")
        weights = stream.standard_normal(prior.features.shape[1]) * prior.scales(0.03)
        weights[0] = 0
        truth = prior.mu * (1 + prior.features @ weights)
        truth = np.maximum(truth, 0.05) * (1 + 0.03 * stream.standard_normal(len(truth)))
        timed = choose_networks(prior, 10)
        low, high = fit_device(prior, timed, truth[timed]).interval_ms().T
        unseen = np.setdiff1d(np.arange(len(truth)), timed)
        covered.append(((low <= truth) & (truth <= high))[unseen].mean())
    assert 0.85 <= np.mean(covered) <= 0.97


def test_one_throttled_timing_hardly_moves_the_forecast(
    prior: DevicePrior, counts: np.ndarray, known_rows: np.ndarray
):
    truth = counts @ known_rows[:, 2]
    timed = choose_networks(prior, 10)
    clean = fit_device(prior, timed, truth[timed]).latency_ms
    for victim in range(10):
        measured = truth[timed].copy()
        measured[victim] *= 2.5
        assert np.median(np.abs(fit_device(prior, timed, measured).latency_ms / clean - 1)) < 0.05


def test_chosen_networks_say_more_than_random_ones(prior: DevicePrior):
    """Left-over variance over the pool, in closed form."""

    def left(timed: np.ndarray) -> float:
        features = prior.features * prior.scales(0.03)
        seen = features[timed]
        known = features @ seen.T
        gain = np.linalg.solve(seen @ seen.T + 1e-3 * np.eye(len(timed)), known.T).T * known
        return float(((features**2).sum(axis=1) - gain.sum(axis=1)).mean())

    random = [left(rng(i, "random").choice(300, 10, replace=False)) for i in range(20)]
    assert left(choose_networks(prior, 10)) < min(random)


def test_choosing_is_deterministic_and_stays_in_the_pool(prior: DevicePrior):
    pool = np.arange(0, 300, 7)
    chosen = choose_networks(prior, 12, pool)
    assert len(set(chosen)) == 12 and set(chosen) <= set(pool)
    assert (chosen == choose_networks(prior, 12, pool)).all()
    with pytest.raises(UserError, match="fewer candidate networks"):
        choose_networks(prior, 12, pool[:11])


def test_groups_share_one_vote(tiny_space: SearchSpace, counts: np.ndarray, known_rows: np.ndarray):
    """A device repeated under one group name weighs as much as once."""
    related = operator_similarity(enumerate_ops(tiny_space))
    two, three = known_rows[:, [0, 5]], known_rows[:, [0, 0, 5]]
    once = device_prior(counts, counts @ two, ["a", "b"], related, known_rows=two)
    twice = device_prior(counts, counts @ three, ["a", "a", "b"], related, known_rows=three)
    assert twice.mu == pytest.approx(once.mu)
    assert twice.features @ twice.features.T == pytest.approx(once.features @ once.features.T)


def test_the_scale_of_a_device_is_its_own(
    prior: DevicePrior, counts: np.ndarray, known_rows: np.ndarray
):
    truth = counts @ known_rows[:, 1]
    timed = choose_networks(prior, 10)
    one, thousand = (fit_device(prior, timed, k * truth[timed]) for k in (1.0, 1000.0))
    assert thousand.latency_ms == pytest.approx(1000 * one.latency_ms)
    assert thousand.rows_ms == pytest.approx(1000 * one.rows_ms)


def test_operator_similarity_is_a_correlation(tiny_space: SearchSpace):
    ops = enumerate_ops(tiny_space)
    related = operator_similarity(ops)
    assert np.diag(related) == pytest.approx(1)
    assert np.linalg.eigvalsh(related).min() > -1e-9
    op = next(op for op in ops if op.kind == "mbconv")
    near, far = replace(op, kernel=op.kernel + 2), replace(op, in_hw=op.in_hw * 8, kind="conv")
    pair = operator_similarity([op, near, far])
    assert pair[0, 1] > pair[0, 2]


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), float("inf")])
def test_timings_that_cannot_be_are_refused(prior: DevicePrior, bad: float):
    with pytest.raises(UserError, match="positive and finite"):
        fit_device(prior, np.arange(4), np.array([1.0, 2.0, bad, 1.0]))
    with pytest.raises(UserError, match="too few"):
        fit_device(prior, np.arange(2), np.ones(2))
    with pytest.raises(UserError, match="positive and finite"):
        device_prior(np.ones((3, 1)), np.array([[1.0], [bad], [1.0]]), ["a"], np.eye(1))
    with pytest.raises(UserError, match="no timings of known devices"):
        device_prior(np.ones((3, 1)), np.ones((3, 0)), [], np.eye(1))


# --- real devices ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("folder", "columns", "least"),
    [
        ("latency_nasbench201", ("1080ti_1", "2080ti_256", "gold_6240", "samsung_a50"), 0.945),
        ("latency_fbnet", ("2080ti_64", "gold_6240", "pixel3", "samsung_a50"), 0.92),
    ],
)
def test_ten_timings_of_a_real_device_say_more_than_any_other_device(
    test_data: Path, folder: str, columns: tuple[str, ...], least: float
):
    """The whole of it, with all seeds, is benchmarks/latency_transfer.py."""
    data = read_measurements(test_data / folder)
    counts = op_counts(data.space, data.live_codes)
    related = operator_similarity(enumerate_ops(data.space))
    scores, alternatives, covered = [], [], []
    for column in columns:
        others = [c for c in data.columns if group_of(c) != group_of(column)]
        known_ms = np.stack([data.column(c) for c in others], axis=1)
        prior = device_prior(counts, known_ms, [group_of(c) for c in others], related)
        truth = data.column(column)
        pool = rng(0, "transfer/pool", column).choice(len(truth), 600, replace=False)
        timed = choose_networks(prior, 10, pool)
        forecast = fit_device(prior, timed, truth[timed])
        scores.append(spearman(forecast.latency_ms, truth))
        agreement = [spearman(ms[timed], truth[timed]) for ms in known_ms.T]
        alternatives.append(spearman(known_ms[:, int(np.argmax(agreement))], truth))
        low, high = forecast.interval_ms().T
        covered.append(((low <= truth) & (truth <= high)).mean())
    assert np.mean(scores) > max(least, float(np.mean(alternatives)))
    assert np.mean(covered) > 0.8
