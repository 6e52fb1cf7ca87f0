"""Rank reports and bias tables against closed forms and injected biases."""

from __future__ import annotations

import numpy as np
import pytest

from hwnas.analysis.advice import advice
from hwnas.analysis.bias import bias_report
from hwnas.analysis.ranks import rank_report
from hwnas.core.errors import UserError
from hwnas.core.records import dump, load
from hwnas.core.rng import rng
from hwnas.core.stats import kendall_tau, spearman
from hwnas.spaces.cost import cost
from hwnas.spaces.space import SearchSpace


def test_a_perfect_ranking_is_reported_as_such():
    truth = rng(0, "truth").normal(size=200)
    report = rank_report(3 * truth + 1, truth, seed=0)
    assert all(part.kendall_tau.value == pytest.approx(1) for part in report.correlations)
    assert all(pick.precision.value == 1 and pick.best_true_rank == 1 for pick in report.picks)
    assert all(prune.recall_of_top.value == 1 for prune in report.prunes)


def test_a_reversed_ranking_keeps_none_of_the_best():
    truth = np.arange(200.0)
    report = rank_report(-truth, truth, seed=0)
    assert report.correlations[0].kendall_tau.value == pytest.approx(-1)
    assert all(prune.recall_of_top.value == 0 for prune in report.prunes)
    assert all(pick.precision.value == 0 for pick in report.picks if pick.fraction < 0.5)


def test_numbers_equal_their_definitions():
    stream = rng(1, "noisy")
    truth = stream.normal(size=300)
    scores = truth + stream.normal(size=300)
    report = rank_report(scores, truth, seed=0)
    whole = report.correlations[0]
    assert (whole.top_fraction, whole.n) == (1.0, 300)
    assert whole.kendall_tau.value == pytest.approx(kendall_tau(scores, truth))
    assert whole.spearman.value == pytest.approx(spearman(scores, truth))
    assert whole.pearson.value == pytest.approx(np.corrcoef(scores, truth)[0, 1])
    assert whole.kendall_tau.low < whole.kendall_tau.value < whole.kendall_tau.high
    for part in report.correlations[1:]:
        rows = np.argsort(-truth)[: part.n]
        assert part.n == pytest.approx(300 * part.top_fraction, abs=1)
        assert part.kendall_tau.value == pytest.approx(kendall_tau(scores[rows], truth[rows]))
    for pick in report.picks:
        chosen = set(np.argsort(-scores)[: pick.k])
        best = set(np.argsort(-truth)[: pick.k])
        assert pick.precision.value == pytest.approx(len(chosen & best) / pick.k)
        ranks = np.argsort(np.argsort(-truth))
        assert pick.best_true_rank == 1 + min(ranks[list(chosen)])
    best = np.argsort(-truth)[:30]
    for prune in report.prunes:
        kept = set(np.argsort(scores)[round(300 * prune.pruned_fraction) :])
        recall = np.mean([row in kept for row in best])
        assert prune.recall_of_top.value == pytest.approx(recall, abs=1 / 30 + 1e-9)


def test_an_injected_bias_is_recovered_in_sign_and_order(tiny_space: SearchSpace):
    stream = rng(2, "bias")
    codes = tiny_space.sample(800, rng=stream)
    truth = stream.normal(size=800)
    names = [choice.name for choice in tiny_space.choices]
    injected = {("resolution", 1): 0.9, ("stage0.width", 2): -0.6, ("stage1.depth", 0): 0.3}
    scores = truth + 0.1 * stream.normal(size=800)
    for (name, code), offset in injected.items():
        scores = scores + offset * (codes[:, names.index(name)] == code)
    report = bias_report(tiny_space, codes, scores, truth)
    found = {(row.choice, row.value): row.shift for row in report.choices}
    shifts = {
        (name, code): found[name, tiny_space.choices[names.index(name)].values[code]]
        for name, code in injected
    }
    assert [np.sign(shifts[key]) for key in injected] == [1, -1, 1]
    sizes = [abs(shifts[key]) for key in injected]
    assert sizes == sorted(sizes, reverse=True)
    named = " ".join(advice(rank_report(scores, truth, seed=0), report))
    assert "resolution" in named


def test_a_bias_towards_large_networks_shows(tiny_space: SearchSpace):
    stream = rng(3, "macs")
    codes = tiny_space.sample(500, rng=stream)
    macs = cost(tiny_space, codes, "macs").astype(float)
    truth = stream.normal(size=500)
    towards = bias_report(tiny_space, codes, truth + macs / macs.std(), truth)
    neutral = bias_report(tiny_space, codes, truth + 0.1 * stream.normal(size=500), truth)
    assert towards.residual_vs_macs > 0.5
    assert abs(neutral.residual_vs_macs) < 0.2


def test_a_bias_towards_slow_networks_shows_per_device(tiny_space: SearchSpace):
    """Two devices whose latencies are independent: the score pays for what one of them dislikes."""
    stream = rng(6, "latency")
    codes = tiny_space.sample(500, rng=stream)
    truth, slow, other = stream.normal(size=500), *stream.uniform(1, 9, size=(2, 500))
    scores = truth - np.log(slow)
    latencies = {"latency_ms@phone": slow, "latency_ms@board": other}
    report = bias_report(tiny_space, codes, scores, truth, latencies=latencies)
    assert report.residual_vs_latency["latency_ms@phone"] < -0.5
    assert abs(report.residual_vs_latency["latency_ms@board"]) < 0.15
    sentences = [s for s in advice(rank_report(scores, truth, seed=0), report) if "Slow" in s]
    assert len(sentences) == 1 and "under-rated" in sentences[0] and "phone" in sentences[0]


def test_the_advice_follows_the_quality_of_the_signal():
    stream = rng(4, "advice")
    truth = stream.normal(size=2000)
    good = advice(rank_report(truth + 0.1 * stream.normal(size=2000), truth, seed=0))
    useless = advice(rank_report(stream.normal(size=2000), truth, seed=0))
    assert any(sentence.startswith("Safe to prune") for sentence in good)
    assert any(sentence.startswith("Not safe to prune") for sentence in useless)
    assert any(sentence.startswith("Not safe to pick") for sentence in useless)


def test_reports_survive_json(tiny_space: SearchSpace):
    stream = rng(5, "json")
    codes, truth = tiny_space.sample(60, rng=stream), stream.normal(size=60)
    for report in (
        rank_report(truth, truth, seed=0),
        bias_report(tiny_space, codes, truth, truth),
    ):
        assert load(type(report), dump(report), where="test") == report


@pytest.mark.parametrize(
    ("scores", "truth"),
    [
        (np.zeros(9), np.zeros(9)),
        (np.zeros(20), np.zeros(21)),
        (np.full(20, np.nan), np.zeros(20)),
    ],
)
def test_too_few_or_broken_scores_are_refused(scores: np.ndarray, truth: np.ndarray):
    with pytest.raises(UserError):
        rank_report(scores, truth, seed=0)
