"""Noise ceilings against known noise, prunings against scores with a known bad choice."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hwnas.analysis.bias import bias_report
from hwnas.analysis.noise import noise_ceiling
from hwnas.analysis.pruning import prune_space
from hwnas.core.errors import UserError
from hwnas.core.rng import rng
from hwnas.spaces.space import SearchSpace


def test_repeats_without_noise_agree_fully():
    ceiling = noise_ceiling(np.repeat(np.arange(50.0)[:, None], 3, axis=1))
    assert (ceiling.n, ceiling.n_repeats) == (50, 3)
    assert (ceiling.kendall_tau, ceiling.kendall_tau_top) == pytest.approx((1, 1))
    assert ceiling.std == 0


def test_the_ceiling_of_gaussian_noise_is_its_closed_form():
    """Two repeats of equal noise correlate at v / (v + s^2); tau = 2 / pi asin(r) (Greiner)."""
    stream = rng(0, "ceiling")
    truth, s = stream.normal(size=4000), 0.5
    repeats = truth[:, None] + s * stream.normal(size=(4000, 2))
    ceiling = noise_ceiling(repeats)
    assert ceiling.kendall_tau == pytest.approx(2 / np.pi * np.arcsin(1 / (1 + s**2)), abs=0.02)
    assert ceiling.std == pytest.approx(s * np.sqrt(2 / np.pi), rel=0.05)  # E|x - y| / sqrt(2)
    assert ceiling.kendall_tau_top < ceiling.kendall_tau


def test_the_ceiling_of_nas_bench_macro_is_the_published_one(test_data: Path):
    records = json.loads((test_data / "nas_bench_macro" / "cifar10.json").read_text())
    ceiling = noise_ceiling(np.array([record["test_acc"] for record in records.values()]))
    assert ceiling.kendall_tau == pytest.approx(0.88, abs=0.01)  # papers.md, section 2
    assert ceiling.kendall_tau_top == pytest.approx(0.18, abs=0.06)


def test_too_few_repeats_are_refused():
    with pytest.raises(UserError, match="too few repeated values"):
        noise_ceiling(np.zeros((50, 1)))
    with pytest.raises(UserError, match=r"finite[\s\S]*100 of 100 are infinite or NaN"):
        noise_ceiling(np.full((50, 2), np.nan))


def scored(space: SearchSpace, bad: dict[str, int | float | str]) -> tuple[np.ndarray, np.ndarray]:
    """Random archs, and noise less a heavy fine for every value of `bad`."""
    codes = space.sample(2000, rng=rng(1, "prune"))
    scores = rng(4, "noise").normal(size=len(codes))
    active = space.active(codes)
    for column, choice in enumerate(space.choices):
        if choice.name in bad:
            picks = active[:, column] & (codes[:, column] == choice.values.index(bad[choice.name]))
            scores -= 100.0 * picks
    return codes, scores


def test_known_bad_values_are_what_goes(tiny_space: SearchSpace):
    bad = {"stage0.width": 16, "stage1.width": 40}  # one or both: 5 / 9 of the archs
    codes, scores = scored(tiny_space, bad)
    pruning = prune_space(tiny_space, codes, scores, pruned_fraction=0.5, truth=scores)
    first_two = {(drop.choice, drop.value) for drop in pruning.dropped[:2]}
    assert first_two == set(bad.items())
    assert pruning.restrict["stage0.width"] == (24, 32)
    assert pruning.restrict["stage1.width"] == (32, 48)
    assert 0.4 <= 1 - pruning.kept_fraction <= 0.65
    assert pruning.kept_of_well_scored >= 0.95
    assert pruning.kept_of_top == 1.0
    restricted = tiny_space.restrict(pruning.restrict)
    assert pruning.size_after == restricted.size() < pruning.size_before == tiny_space.size()
    alive = restricted.validate(codes)
    assert alive.mean() == pytest.approx(pruning.kept_fraction)


def test_scores_that_know_nothing_prune_next_to_nothing(tiny_space: SearchSpace):
    codes = tiny_space.sample(2000, rng=rng(2, "prune"))
    noise = rng(3, "noise").normal(size=len(codes))
    pruning = prune_space(tiny_space, codes, noise, pruned_fraction=0.5)
    assert pruning.kept_of_well_scored >= 0.95
    assert pruning.kept_fraction >= 0.85  # values go together with the archs, good and bad alike
    assert pruning.kept_of_top is None


def test_impossible_fractions_are_refused(tiny_space: SearchSpace):
    codes, scores = scored(tiny_space, {})
    for fraction in (0.0, 1.0):
        with pytest.raises(UserError, match=r"\(0, 1\)"):
            prune_space(tiny_space, codes, scores, pruned_fraction=fraction)


def test_codes_of_another_shape_are_refused_with_both_shapes(tiny_space: SearchSpace):
    codes, scores = scored(tiny_space, {})
    n, d = codes.shape
    shapes = rf"expected: .*\({n}, {d}\)\n  found: shape \({n - 1}, {d}\)"
    with pytest.raises(UserError, match=shapes):
        prune_space(tiny_space, codes[1:], scores, pruned_fraction=0.5)
    with pytest.raises(UserError, match=shapes):
        bias_report(tiny_space, codes[1:], scores, scores)
