"""What every predictor promises: `interfaces.AccuracyPredictor`."""

from __future__ import annotations

import numpy as np
import pytest

from hwnas.core.errors import UserError
from hwnas.core.rng import rng
from hwnas.core.stats import kendall_tau
from hwnas.interfaces import PredictorContext
from hwnas.predictors import REGISTRY, gcn
from hwnas.predictors.recipe import Recipe
from hwnas.spaces.cost import cost

N_FIT, N_TEST = 120, 400

RECIPE = Recipe(members=2, min_steps=20, max_steps=20)
QUICK = {
    "training": RECIPE,
    "teacher": gcn.Config(training=RECIPE),
    "n_archs": 512,
    "epochs": 20,
    "n_trees": 20,
}


@pytest.fixture(params=REGISTRY.names)
def build(request, tiny_space):
    """Default settings, but for the number of archs that a distilled predictor learns from."""
    module = REGISTRY.load(request.param)
    config = module.Config(n_archs=2048) if request.param == "distilled" else module.Config()
    return lambda seed=0: module.build(config, PredictorContext(tiny_space, seed))


@pytest.fixture(params=REGISTRY.names)
def build_quick(request, tiny_space):
    """Networks train for a few steps only, where quality does not matter."""
    module = REGISTRY.load(request.param)
    settings = {key: QUICK[key] for key in QUICK if key in module.Config.model_fields}

    def build(seed=0, space=tiny_space):
        return module.build(module.Config(**settings), PredictorContext(space, seed))

    return build


@pytest.fixture(scope="module")
def labelled(tiny_space):
    """Archs with an additive score: every value of every choice has its own random worth."""
    stream = rng(0, "test/additive")
    codes = tiny_space.sample(stream, N_FIT + N_TEST)
    one_hot = tiny_space.encode(codes)
    scores = one_hot @ stream.normal(size=one_hot.shape[1])
    return codes, 0.7 + 0.05 * (scores - scores.mean()) / scores.std()


def test_ranks_an_additive_truth_better_than_macs(build, labelled, tiny_space):
    codes, scores = labelled
    predictor = build()
    predictor.fit(codes[:N_FIT], scores[:N_FIT])
    mean, std = predictor.predict(codes[N_FIT:])
    assert mean.shape == std.shape == (N_TEST,)
    assert mean.dtype == std.dtype == np.float64
    truth = scores[N_FIT:]
    macs = cost(tiny_space, codes[N_FIT:], "macs").astype(float)
    assert kendall_tau(mean, truth) > max(0.0, kendall_tau(macs, truth)) + 0.2
    # in the labels' unit: better than guessing the mean, and intervals that are neither empty lies
    # nor so wide that they say nothing
    assert np.sqrt(((mean - truth) ** 2).mean()) < 0.9 * truth.std()
    assert 0.7 <= (np.abs(mean - truth) <= 1.645 * std).mean() <= 1.0
    assert 0 < std.mean() < 2 * truth.std()


def test_equal_seeds_give_equal_predictions(build_quick, labelled):
    codes, scores = labelled
    results = []
    for global_seed in (1, 2):
        np.random.seed(global_seed)  # nothing may read the global stream
        predictor = build_quick(seed=3)
        predictor.fit(codes[:40], scores[:40])
        results.append(predictor.predict(codes[N_FIT:]))
    np.testing.assert_array_equal(results[0], results[1])


def test_fit_forgets_earlier_labels(build_quick, labelled):
    codes, scores = labelled
    fresh, used = build_quick(), build_quick()
    used.fit(codes[40:80], scores[40:80] + 1)
    for predictor in (fresh, used):
        predictor.fit(codes[:40], scores[:40])
    np.testing.assert_array_equal(fresh.predict(codes[:50]), used.predict(codes[:50]))


def test_state_round_trips(build_quick, labelled):
    from safetensors.numpy import load, save

    codes, scores = labelled
    predictor, restored = build_quick(), build_quick()
    predictor.fit(codes[:40], scores[:40])
    state = predictor.state()
    restored.load_state(load(save({name: np.ascontiguousarray(a) for name, a in state.items()})))
    np.testing.assert_array_equal(predictor.predict(codes[:50]), restored.predict(codes[:50]))


def test_predictions_do_not_depend_on_the_batch(build_quick, labelled):
    codes, scores = labelled
    predictor = build_quick()
    predictor.fit(codes[:40], scores[:40])
    whole = np.array(predictor.predict(codes[:300]))
    parts = np.hstack([predictor.predict(codes[:7]), predictor.predict(codes[7:300])])
    np.testing.assert_allclose(whole, parts, rtol=0, atol=1e-6)
    mean, std = predictor.predict(codes[:0])
    assert mean.shape == std.shape == (0,)


def test_affine_change_of_unit_changes_only_the_unit(build_quick, labelled):
    codes, scores = labelled
    predictor = build_quick()
    predictor.fit(codes[:40], scores[:40])
    mean, std = predictor.predict(codes[:50])
    predictor.fit(codes[:40], 100 * scores[:40] - 5)
    in_percent, std_in_percent = predictor.predict(codes[:50])
    np.testing.assert_allclose(in_percent, 100 * mean - 5, atol=10 * scores.std())
    np.testing.assert_allclose(std_in_percent, 100 * std, rtol=0.2)


def test_constant_labels_give_that_constant(build_quick, labelled):
    codes, _ = labelled
    predictor = build_quick()
    predictor.fit(codes[:20], np.full(20, 0.625))
    mean, std = predictor.predict(codes[:30])
    np.testing.assert_array_equal(mean, 0.625)
    np.testing.assert_array_equal(std, 0.0)


def test_eight_labels_are_enough_to_run(build_quick, labelled):
    codes, scores = labelled
    predictor = build_quick()
    predictor.fit(codes[:8], scores[:8])
    mean, std = predictor.predict(codes[:100])
    assert np.isfinite(mean).all() and np.isfinite(std).all() and (std > 0).all()
    assert np.abs(mean - scores[:8].mean()).max() < 10 * scores.std()


def test_bad_input_is_refused(build_quick, labelled):
    codes, scores = labelled
    predictor = build_quick()
    with pytest.raises(UserError, match="not been fitted"):
        predictor.predict(codes)
    with pytest.raises(UserError, match="not been fitted"):
        predictor.state()
    with pytest.raises(UserError, match="do not belong to this space"):
        predictor.fit(codes[:20, :-1], scores[:20])
    with pytest.raises(UserError, match="at least 4"):
        predictor.fit(codes[:3], scores[:3])
    with pytest.raises(UserError, match="one score"):
        predictor.fit(codes[:20], scores[:19])
    with pytest.raises(UserError, match="finite"):
        predictor.fit(codes[:20], np.where(np.arange(20) == 7, np.nan, scores[:20]))
    predictor.fit(codes[:20], scores[:20])
    with pytest.raises(UserError, match="do not belong to this space"):
        predictor.predict(codes[:20, :-1])
    outside = codes[:20].copy()
    outside[3, 0] = 9
    with pytest.raises(UserError, match=r"out of range for resolution"):
        predictor.predict(outside)


def test_works_on_a_restricted_space_with_labels_from_before(build_quick, labelled, tiny_space):
    codes, scores = labelled
    narrow = tiny_space.restrict({"stage0.depth": (2, 3)})
    predictor = build_quick(space=narrow)
    predictor.fit(codes[:40], scores[:40])
    full = build_quick()
    full.fit(codes[:40], scores[:40])
    np.testing.assert_allclose(predictor.predict(codes)[0], full.predict(codes)[0], atol=1e-6)
