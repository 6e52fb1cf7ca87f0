"""Prior over devices, choice of networks and forecast, against truths in closed form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from hwnas.core.errors import UserError
from hwnas.core.rng import rng
from hwnas.core.stats import Z90, spearman
from hwnas.latency import transfer
from hwnas.latency.transfer import (
    MIN_SPREAD,
    SIMILARITY_LENGTH,
    DevicePrior,
    choose_networks,
    device_prior,
    fit_device,
    operator_similarity,
)
from hwnas.measure.published.networks import group_of, read_measurements
from hwnas.spaces.index import enumerate_ops, op_counts
from hwnas.spaces.ops import OpSpec
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


# --- against closed forms -------------------------------------------------------------------------


@pytest.mark.parametrize("groups", [range(N_KNOWN), [0, 0, 0, 1, 2, 2]])
def test_prices_of_operators_add_up_to_the_features_of_networks(
    tiny_space: SearchSpace, counts: np.ndarray, known_rows: np.ndarray, groups: Sequence[int]
):
    """counts @ rows = mu * (1, features), whatever the weights of a new device will be."""
    related = operator_similarity(enumerate_ops(tiny_space))
    known_ms = counts @ known_rows
    names = [f"group{i}" for i in groups]
    prior = device_prior(counts, known_ms, names, related, known_rows=known_rows)
    votes = np.array([1 / names.count(name) for name in names]) / len(set(names))
    relative = known_ms / np.median(known_ms, axis=0)
    np.testing.assert_allclose(prior.mu, relative @ votes)
    features = np.concatenate([np.ones((len(counts), 1)), prior.features], axis=1)
    np.testing.assert_allclose(counts @ prior.rows, prior.mu[:, None] * features, atol=1e-9)


@pytest.mark.parametrize(("factor", "is_wide"), [(1.0, False), (3.0, True)])
def test_known_devices_and_operators_explain_equal_variance(
    tiny_space: SearchSpace,
    counts: np.ndarray,
    known_rows: np.ndarray,
    factor: float,
    is_wide: bool,
):
    """A known device is one deviation from the mean, so its departure is its feature."""
    known = counts @ known_rows
    known = known * np.exp(factor * rng(0, "known").normal(0, 0.05, known.shape))
    similarity = operator_similarity(enumerate_ops(tiny_space))
    names = [f"device{i}" for i in range(N_KNOWN)]
    prior = device_prior(counts, known, names, similarity, known_rows=known_rows)
    relative = known / np.median(known, axis=0)
    departures = relative / relative.mean(axis=1, keepdims=True) - 1
    departures -= departures.mean(axis=0)
    shared, particular = prior.features[:, 1 : 1 + N_KNOWN], prior.features[:, 1 + N_KNOWN :]
    np.testing.assert_allclose(prior.features[:, 0], 1)
    np.testing.assert_allclose(shared, departures / np.sqrt(N_KNOWN), atol=1e-12)
    spread = (shared**2).sum(axis=1).mean()
    assert (spread > MIN_SPREAD**2) == is_wide
    per_op = counts / prior.mu[:, None]
    per_op -= per_op.mean(axis=0)
    expected = per_op @ similarity @ per_op.T  # networks are as similar as their operators
    expected *= max(spread, MIN_SPREAD**2) / np.diag(expected).mean()
    np.testing.assert_allclose(particular @ particular.T, expected, atol=1e-9)


def test_one_known_device_has_a_spread_all_the_same(
    tiny_space: SearchSpace, counts: np.ndarray, known_rows: np.ndarray
):
    related = operator_similarity(enumerate_ops(tiny_space))
    one = known_rows[:, :1]
    prior = device_prior(counts, counts @ one, ["a"], related, known_rows=one)
    np.testing.assert_allclose(prior.features[:, 1], 0, atol=1e-12)
    assert (prior.features[:, 2:] ** 2).sum(axis=1).mean() == pytest.approx(MIN_SPREAD**2)


def test_prices_without_rows_are_those_that_explain_the_networks(
    tiny_space: SearchSpace, counts: np.ndarray, known_rows: np.ndarray
):
    related = operator_similarity(enumerate_ops(tiny_space))
    known = counts @ known_rows
    prior = device_prior(counts, known, list("abcdef"), related)
    np.testing.assert_allclose(counts @ prior.rows[:, 0], prior.mu, rtol=1e-3)
    one = np.array([[1.0, 1.0], [1.0, 1.0], [2.0, 2.0]])  # not to be told apart: equal shares
    found = device_prior(one, np.array([[2.0], [2.0], [4.0]]), ["a"], np.eye(2))
    np.testing.assert_allclose(found.rows[:, 0], 0.5, rtol=1e-4)


def test_fewer_known_devices_leave_more_to_the_new_one():
    """Batch sizes of one device count once; with ten devices the variances are those measured."""
    counts, known = np.ones((4, 1)), np.ones((4, 10)) * np.arange(1, 5)[:, None]
    for groups, factor in ((list("abcdefghij"), 1.0), (["a"] * 5 + ["b"] * 5, 5.0)):
        prior = device_prior(counts, known, groups, np.eye(1))
        np.testing.assert_allclose(prior.particulars, factor * np.array(transfer.PARTICULAR))


def test_the_first_choice_leaves_the_least_variance(prior: DevicePrior):
    """By conditioning on each candidate in turn; a common factor of all networks is no error."""
    pool = np.arange(0, 300, 10)
    scaled = prior.features[pool] * prior.scales(float(np.median(prior.particulars)))
    covariance, noise = scaled @ scaled.T, float(np.median(transfer.NOISE))
    centre = np.eye(len(pool)) - 1 / len(pool)

    def left(seen: list[int]) -> float:
        inside = covariance[np.ix_(seen, seen)] + noise * np.eye(len(seen))
        known = covariance[:, seen]
        rest = covariance - known @ np.linalg.inv(inside) @ known.T
        return float(np.trace(centre @ rest @ centre))

    chosen: list[int] = []
    for _ in range(3):
        others = [i for i in range(len(pool)) if i not in chosen]
        chosen.append(min(others, key=lambda i: left([*chosen, i])))
    np.testing.assert_array_equal(choose_networks(prior, 3, pool), pool[chosen])


def test_without_outliers_the_estimate_is_a_bayesian_regression(
    prior: DevicePrior, monkeypatch: pytest.MonkeyPatch
):
    noise, particular = 1e-3, 0.03
    monkeypatch.setattr(transfer, "NOISE", (noise,))
    monkeypatch.setattr(transfer, "PARTICULAR", (particular,))
    monkeypatch.setattr(transfer, "N_KNOWN", prior.n_known)
    monkeypatch.setattr(transfer, "OUTLIER_RATE", 1e-300)
    timed = np.arange(0, 300, 25)
    measured = prior.mu[timed] * (5 + 0.5 * np.cos(np.arange(len(timed))))
    found = fit_device(prior, timed, measured)
    scale = np.median(measured / prior.mu[timed])
    features = prior.features * prior.scales(particular)
    seen, target = features[timed], measured / (scale * prior.mu[timed]) - 1
    covariance = np.linalg.inv(seen.T @ seen / noise + np.eye(seen.shape[1]))
    weights = covariance @ seen.T @ target / noise
    std = np.sqrt(np.einsum("ij,jk,ik->i", features, covariance, features) + noise)
    size = scale * prior.mu
    np.testing.assert_allclose(found.latency_ms, size * (1 + features @ weights), rtol=1e-6)
    np.testing.assert_allclose(found.std_ms, size * std, rtol=1e-6)
    rows = prior.rows[:, 1:] * prior.scales(particular)
    least = transfer.MIN_SHARE * prior.rows[:, 0]
    prices = np.maximum(prior.rows[:, 0] + rows @ weights, least)
    np.testing.assert_allclose(found.rows_ms, scale * prices, rtol=1e-6)
    row_std = np.sqrt(np.einsum("ij,jk,ik->i", rows, covariance, rows))
    np.testing.assert_allclose(found.rows_std_ms, scale * row_std, rtol=1e-4, atol=1e-9)
    half = Z90 * found.std_ms
    np.testing.assert_allclose(
        found.interval_ms().T, [np.maximum(found.latency_ms - half, 0), found.latency_ms + half]
    )


@pytest.mark.parametrize("n_outliers", [0, 2])
def test_evidence_is_the_density_of_the_timings_and_their_outliers(n_outliers: int):
    stream = rng(0, "outliers")
    root = stream.normal(size=(9, 4))
    covariance = 0.01 * root @ root.T + 1e-3 * np.eye(9)
    target = np.linalg.cholesky(covariance) @ stream.normal(size=9)
    target[:n_outliers] += 2.0
    found, evidence = transfer._with_outliers(covariance, target)
    added = np.diag(found - covariance)
    np.testing.assert_allclose(added, transfer.OUTLIER_VARIANCE * (np.arange(9) < n_outliers))
    density = multivariate_normal(np.zeros(9), found).logpdf(target) + 4.5 * np.log(2 * np.pi)
    odds = np.log(transfer.OUTLIER_RATE / (1 - transfer.OUTLIER_RATE))
    assert evidence == pytest.approx(density + n_outliers * odds)


def test_hypotheses_are_mixed() -> None:
    """Mean and deviation of samples of a mixture of two normals."""
    mean, std = transfer._mixture(
        np.array([0.25, 0.75]), np.array([[1.0], [3.0]]), np.array([[4.0], [1.0]])
    )
    assert mean == pytest.approx(2.5)
    assert std == pytest.approx(np.sqrt(0.25 * (4 + 1.5**2) + 0.75 * (1 + 0.5**2)))


# --- on devices -----------------------------------------------------------------------------------


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
    with pytest.raises(UserError, match="too few networks to choose from"):
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


@pytest.mark.parametrize(
    ("change", "square"),
    [
        ({}, 0.0),
        ({"in_channels": 16}, 1.0),  # one octave
        ({"out_channels": 32}, 4.0),
        ({"mid_channels": 31}, np.log2(49 / 32) ** 2),
        ({"in_hw": 4}, 4.0),
        ({"groups": 4}, 4.0),
        ({"expand_groups": 2}, 1.0),
        ({"kernel": 5}, 1.0),
        ({"start_kernel": 3}, 1.5**2),
        ({"stride": 2}, 1.0),
        ({"se_channels": 4}, 1.0),
        ({"kind": "uib"}, 2 * SIMILARITY_LENGTH**2),
    ],
)
def test_similarity_falls_with_the_distance_in_octaves(change: dict[str, Any], square: float):
    """exp(-d ** 2 / 2 L ** 2), and every difference adds its square."""
    op = OpSpec("mbconv", 8, 8, 16, 1, kernel=3, mid_channels=48)
    other = replace(op, **change)
    stem = OpSpec("conv", 3, 8, 16, 1, kernel=3)
    found = operator_similarity([op, other, stem])
    assert found[0, 1] == found[1, 0] == pytest.approx(np.exp(-square / 8))
    assert SIMILARITY_LENGTH == 2.0


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), float("inf")])
def test_timings_that_cannot_be_are_refused(prior: DevicePrior, bad: float):
    with pytest.raises(UserError, match="positive and finite"):
        fit_device(prior, np.arange(4), np.array([1.0, 2.0, bad, 1.0]))
    with pytest.raises(UserError, match="too few"):
        fit_device(prior, np.arange(2), np.ones(2))
    with pytest.raises(UserError, match="positive and finite"):
        device_prior(np.ones((3, 1)), np.array([[1.0], [bad], [1.0]]), ["a"], np.eye(1))
    with pytest.raises(UserError, match="no timings of known devices\n  expected: at least one"):
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
