"""Labels of several sources, proxies and distillation, on truths that are known."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from hwnas.core.errors import UserError
from hwnas.core.rng import rng
from hwnas.core.stats import kendall_tau
from hwnas.interfaces import PredictorContext
from hwnas.predictors import REGISTRY, distilled, gcn, ridge
from hwnas.predictors.blend import blend, few_shot_blend, mix_weights
from hwnas.predictors.evaluate import cross_fitted
from hwnas.predictors.labels import RobustScale
from hwnas.predictors.proxies import ListedProxy
from hwnas.predictors.recipe import Recipe
from hwnas.predictors.transfer import LabelSet, TransferPredictor
from hwnas.studies.compare_predictors import labels_of_file

N_FEW = 24
CELL = "|avg_pool_3x3~0|+|none~0|none~1|+|nor_conv_1x1~0|none~1|none~2|"


@pytest.fixture(scope="module")
def archs(tiny_space):
    """Distinct archs; their truth is additive in the choices, and saturates."""
    stream = rng(0, "test/sources")
    codes = np.unique(tiny_space.sample(700, rng=stream), axis=0)
    codes = codes[stream.permutation(len(codes))]
    one_hot = tiny_space.encode(codes)
    quality = one_hot @ stream.normal(size=one_hot.shape[1])
    return codes, 1 / (1 + np.exp(-(quality - quality.mean()) / quality.std()))


def build_ridge(space):
    return lambda proxies: ridge.build(ridge.Config(), PredictorContext(space, 0, proxies))


# --- several sources ------------------------------------------------------------------------------


def transferred(space, archs, others):
    codes, truth = archs
    predictor = TransferPredictor(build_ridge(space), others, seed=0)
    predictor.fit(codes[:N_FEW], truth[:N_FEW])
    return predictor, kendall_tau(predictor.predict(codes[400:])[0], truth[400:])


def test_many_noisy_labels_and_few_true_ones_beat_either(archs, tiny_space):
    codes, truth = archs
    noisy = 50 + 9 * (truth + truth.std() * rng(0, "noise").normal(size=len(truth)))  # other unit
    cheap = LabelSet("supernet", codes[:400], noisy[:400])
    few, many = build_ridge(tiny_space)(()), build_ridge(tiny_space)(())
    few.fit(codes[:N_FEW], truth[:N_FEW])
    many.fit(cheap.codes, cheap.scores)
    parts = [kendall_tau(p.predict(codes[400:])[0], truth[400:]) for p in (few, many)]
    predictor, tau = transferred(tiny_space, archs, [cheap])
    assert tau > max(parts) - 0.01
    assert tau > parts[0] + 0.05
    assert predictor.n_labels == {"supernet": 400, "target": N_FEW}
    mean, std = predictor.predict(codes[400:])  # in the target's unit, not in the supernet's
    assert np.sqrt(((mean - truth[400:]) ** 2).mean()) < 0.7 * truth.std()
    assert 0.8 <= (np.abs(mean - truth[400:]) <= 1.645 * std).mean() <= 1


def test_an_unrelated_source_does_no_harm_on_average(archs, tiny_space):
    codes, truth = archs
    losses = []
    for seed in range(4):
        order = rng(seed, "test/unrelated").permutation(400)
        own, unrelated = order[:60], rng(seed, "test/noise").normal(size=400)
        others = [LabelSet("unrelated", codes[:400], unrelated)]
        taus = []
        for predictor in (
            build_ridge(tiny_space)(()),
            TransferPredictor(build_ridge(tiny_space), others, seed=seed),
        ):
            predictor.fit(codes[own], truth[own])
            taus.append(kendall_tau(predictor.predict(codes[400:])[0], truth[400:]))
        losses.append(taus[0] - taus[1])
    assert np.mean(losses) < 0.02


def test_transfer_state_round_trips(archs, tiny_space):
    codes, truth = archs
    sets = [LabelSet("a", codes[:60], truth[:60] ** 2), LabelSet("b", codes[:50], -truth[:50])]
    predictor, _ = transferred(tiny_space, archs, sets)
    restored = TransferPredictor(build_ridge(tiny_space), sets, seed=0)
    with pytest.raises(UserError, match="not been fitted"):
        restored.predict(codes)
    restored.load_state(predictor.state())
    np.testing.assert_array_equal(restored.predict(codes), predictor.predict(codes))


def test_mix_weights_prefer_what_is_better_and_ignore_what_misleads():
    stream = rng(0, "test/mix")
    truth = stream.normal(size=2000)
    good, poor = (truth + noise * stream.normal(size=2000) for noise in (0.3, 1.5))
    weights = mix_weights([good, 100 * poor, -truth], truth)
    assert weights.sum() == pytest.approx(1)
    assert weights[0] > 5 * weights[1] > 0
    assert weights[2] == 0
    np.testing.assert_array_equal(mix_weights([-truth, -good], truth), [0.5, 0.5])


def test_cross_fitting_never_forecasts_what_was_learned(tiny_space, archs):
    codes, truth = archs
    seen = []

    class Memory:
        def fit(self, codes, scores):
            seen.append({tuple(row) for row in codes.tolist()})

        def predict(self, codes):
            assert not seen[-1] & {tuple(row) for row in codes.tolist()}
            return np.full(len(codes), float(len(seen))), np.ones(len(codes))

    folds = cross_fitted(Memory, codes[:23], truth[:23], seed=0)
    assert sorted(np.unique(folds, return_counts=True)[1]) == [4, 4, 5, 5, 5]


def test_few_shot_blend_is_as_good_as_its_better_part(archs, tiny_space):
    codes, truth = archs
    supernet = truth + 1.5 * truth.std() * rng(0, "test/supernet").normal(size=len(truth))
    predictor, fitted = few_shot_blend(
        lambda: build_ridge(tiny_space)(()), codes[:30], truth[:30], supernet[:30], seed=0
    )
    predicted = predictor.predict(codes[30:])[0]
    both = kendall_tau(blend(fitted, supernet[30:], predicted), truth[30:])
    assert both > max(kendall_tau(p, truth[30:]) for p in (supernet[30:], predicted)) - 0.01
    assert fitted.n_held_back == 30


# --- proxies --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [n for n in REGISTRY.names if n != "distilled"])
def test_a_proxy_that_tells_the_truth_is_used(archs, tiny_space, name):
    codes, _ = archs
    hidden = rng(0, "test/hidden").normal(size=len(codes))  # what no choice says
    proxy = ListedProxy(tiny_space, codes, 7 * hidden + 3, name="hidden")
    module = REGISTRY.load(name)
    quick = {"width": 16, "training": Recipe(members=2, max_steps=150)}
    quick = quick if name in ("gcn", "mlp") else {}
    predictor = module.build(module.Config(**quick), PredictorContext(tiny_space, 0, [proxy]))
    predictor.fit(codes[:100], hidden[:100])
    assert kendall_tau(predictor.predict(codes[100:])[0], hidden[100:]) > 0.5


# --- distillation ---------------------------------------------------------------------------------


def test_the_distilled_net_ranks_as_its_teacher_does(archs, tiny_space):
    codes, truth = archs
    teacher_config = gcn.Config(width=12, training=Recipe(members=2, max_steps=150))
    config = distilled.Config(teacher=teacher_config, n_archs=8192)
    student = distilled.build(config, PredictorContext(tiny_space, 0))
    teacher = gcn.build(teacher_config, PredictorContext(tiny_space, 0))
    for predictor in (student, teacher):
        predictor.fit(codes[:100], truth[:100])
    (mean, std), (taught, taught_std) = (p.predict(codes[100:]) for p in (student, teacher))
    assert kendall_tau(mean, taught) > 0.9
    assert np.median(np.abs(mean - taught)) < 0.1 * truth.std()
    covered, taught_covered = (
        (np.abs(m - truth[100:]) <= 1.645 * s).mean()
        for m, s in ((mean, std), (taught, taught_std))
    )
    assert abs(covered - taught_covered) < 0.05


def test_the_distilled_net_learns_what_a_proxy_told_its_teacher(archs, tiny_space):
    """Proxies are functions of the arch, so that the student, which has none, can imitate them."""
    codes, truth = archs
    one_hot = tiny_space.encode(codes)
    worth = rng(0, "test/sources").normal(size=one_hot.shape[1])
    teacher_config = gcn.Config(width=12, training=Recipe(members=2, max_steps=150))
    taus = []
    for proxies in ([], [lambda some: (tiny_space.encode(some) @ worth - 9.0) / 2.0]):
        config = distilled.Config(teacher=teacher_config, n_archs=2048, epochs=40)
        student = distilled.build(config, PredictorContext(tiny_space, 0, proxies))
        student.fit(codes[:12], truth[:12])
        taus.append(kendall_tau(student.predict(codes[100:])[0], truth[100:]))
    assert taus[1] > taus[0] + 0.05


def test_proxies_say_which_archs_they_do_not_know(archs, tiny_space):
    codes, truth = archs
    proxy = ListedProxy(tiny_space, codes[:50], truth[:50], name="truth")
    shuffled = rng(0, "test/shuffled").permutation(50)
    standard = (truth[:50] - truth[:50].mean()) / truth[:50].std()
    np.testing.assert_allclose(proxy(codes[shuffled]), standard[shuffled])
    with pytest.raises(UserError, match=r"some archs have no value of truth[\s\S]*3 of 53"):
        proxy(codes[:53])


def test_columns_that_give_the_target_away_are_refused(tmp_path):
    file = tmp_path / "cells.csv"
    cells = ["|nor_conv_3x3~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|", CELL]
    file.write_text("arch,acc,empty\n" + "".join(f"{c},{90 + i},\n" for i, c in enumerate(cells)))
    how = {"reader": "nasbench201", "target": "acc"}
    for option in ("also", "proxies"):
        with pytest.raises(UserError, match="the target acc is also an input"):
            labels_of_file(file, **how, **{option: ["acc"]})
        with pytest.raises(UserError, match="the column empty has no values"):
            labels_of_file(file, **how, **{option: ["empty"]})


@pytest.mark.parametrize("name", ["gcn", "ridge", "gp"])
def test_labels_that_no_fit_can_use_are_refused(archs, tiny_space, name):
    module = REGISTRY.load(name)
    predictor = module.build(module.Config(), PredictorContext(tiny_space, 0))
    codes, truth = archs
    with pytest.raises(UserError, match=r"all labels are of the same arch[\s\S]*8 labels"):
        predictor.fit(np.repeat(codes[:1], 8, axis=0), truth[:8])
    with pytest.raises(UserError, match=r"too large[\s\S]*8 of 8 are larger"):
        predictor.fit(codes[:8], truth[:8] * 1e200)


def test_states_of_earlier_versions_are_read(archs, tiny_space):
    """Their second layer was half as wide as the first."""
    codes, _ = archs
    sizes = (tiny_space.encode(codes).shape[1], 16, 8, 2)
    stream = rng(0, "test/earlier")
    state = {
        name: stream.normal(size=shape).astype(np.float32)
        for i, (n_in, n_out) in enumerate(pairwise(sizes))
        for name, shape in ((f"weight{i}", (n_in, n_out)), (f"bias{i}", (n_out,)))
    }
    scale = {"scale": np.array([0.5, 0.1, 0.0])}
    predictor = distilled.build(distilled.Config(width=16), PredictorContext(tiny_space, 0))
    predictor.load_state(state | scale)
    hidden = np.maximum(tiny_space.encode(codes) @ state["weight0"] + state["bias0"], 0)
    hidden = np.maximum(hidden @ state["weight1"] + state["bias1"], 0)
    expected = RobustScale(0.5, 0.1).restore((hidden @ state["weight2"] + state["bias2"])[:, 0])
    np.testing.assert_allclose(predictor.predict(codes)[0], expected, rtol=1e-4)


def test_distilling_refuses_strange_states(tiny_space):
    predictor = distilled.build(distilled.Config(), PredictorContext(tiny_space, 0))
    with pytest.raises(UserError, match="state belongs to another predictor"):
        predictor.load_state({"weight0": np.zeros((3, 3), dtype=np.float32)})
