"""Contract tests of predictors: `interfaces.AccuracyPredictor`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from hwnas.core.errors import UserError
from hwnas.core.rng import rng
from hwnas.core.stats import kendall_tau
from hwnas.interfaces import AccuracyPredictor, FloatArray, PredictorContext, PredictorModule
from hwnas.spaces.cost import cost
from hwnas.spaces.space import Codes
from hwnas.testing.suite import Suite, tiny_space

__all__ = ["PredictorSuite"]

N_FIT, N_TEST = 120, 400

Build = Callable[..., AccuracyPredictor]
Labelled = tuple[Codes, FloatArray]


class PredictorSuite(Suite):
    """Contract of a predictor. Quality is tested with `config`, the rest with `quick_config`."""

    CONTRACT = PredictorModule

    @pytest.fixture
    def build(self, variant: Any, config: Any) -> Build:
        """A function that builds the predictor with its settings."""
        return lambda seed=0: variant.build(config, PredictorContext(tiny_space(), seed))

    @pytest.fixture
    def build_quick(self, variant: Any, quick_config: Any) -> Build:
        """A function that builds it with its quick settings, for `tiny_space` or a given space."""
        return lambda seed=0, space=None: variant.build(
            quick_config, PredictorContext(space or tiny_space(), seed)
        )

    @pytest.fixture
    def labelled(self) -> Labelled:
        """Archs with an additive score: every value of every choice adds a random term."""
        stream = rng(0, "test/additive")
        codes = tiny_space().sample(N_FIT + N_TEST, rng=stream)
        one_hot = tiny_space().encode(codes)
        scores = one_hot @ stream.normal(size=one_hot.shape[1])
        return codes, 0.7 + 0.05 * (scores - scores.mean()) / scores.std()

    def test_ranks_an_additive_truth_better_than_macs(
        self, build: Build, labelled: Labelled
    ) -> None:
        """Kendall's tau exceeds that of MACs by 0.2; intervals are narrow and cover the scores."""
        codes, scores = labelled
        predictor = build()
        predictor.fit(codes[:N_FIT], scores[:N_FIT])
        mean, std = predictor.predict(codes[N_FIT:])
        assert mean.shape == std.shape == (N_TEST,)
        assert mean.dtype == std.dtype == np.float64
        truth = scores[N_FIT:]
        macs = cost(tiny_space(), codes[N_FIT:], "macs").astype(float)
        assert kendall_tau(mean, truth) > max(0.0, kendall_tau(macs, truth)) + 0.2
        # better than predicting the mean; intervals cover the truth, and are informative
        assert np.sqrt(((mean - truth) ** 2).mean()) < 0.9 * truth.std()
        assert 0.7 <= (np.abs(mean - truth) <= 1.645 * std).mean() <= 1.0
        assert 0 < std.mean() < 2 * truth.std()

    def test_equal_seeds_give_equal_predictions(
        self, build_quick: Build, labelled: Labelled
    ) -> None:
        """Predictors do not use a global random generator."""
        codes, scores = labelled
        results = []
        for global_seed in (1, 2):
            np.random.seed(global_seed)
            predictor = build_quick(seed=3)
            predictor.fit(codes[:40], scores[:40])
            results.append(predictor.predict(codes[N_FIT:]))
        np.testing.assert_array_equal(results[0], results[1])

    def test_fit_forgets_earlier_labels(self, build_quick: Build, labelled: Labelled) -> None:
        """A second fit gives the same result as a first fit."""
        codes, scores = labelled
        fresh, used = build_quick(), build_quick()
        used.fit(codes[40:80], scores[40:80] + 1)
        for predictor in (fresh, used):
            predictor.fit(codes[:40], scores[:40])
        np.testing.assert_array_equal(fresh.predict(codes[:50]), used.predict(codes[:50]))

    def test_state_round_trips(self, build_quick: Build, labelled: Labelled) -> None:
        """The state is stored with safetensors."""
        from safetensors.numpy import load, save

        codes, scores = labelled
        predictor, restored = build_quick(), build_quick()
        predictor.fit(codes[:40], scores[:40])
        state = predictor.state()
        restored.load_state(
            load(save({name: np.ascontiguousarray(a) for name, a in state.items()}))
        )
        np.testing.assert_array_equal(predictor.predict(codes[:50]), restored.predict(codes[:50]))

    def test_predictions_do_not_depend_on_the_batch(
        self, build_quick: Build, labelled: Labelled
    ) -> None:
        """300 archs give the same predictions at once or in parts; no archs give none."""
        codes, scores = labelled
        predictor = build_quick()
        predictor.fit(codes[:40], scores[:40])
        whole = np.array(predictor.predict(codes[:300]))
        parts = np.hstack([predictor.predict(codes[:7]), predictor.predict(codes[7:300])])
        np.testing.assert_allclose(whole, parts, rtol=0, atol=1e-6)
        mean, std = predictor.predict(codes[:0])
        assert mean.shape == std.shape == (0,)

    def test_affine_change_of_unit_changes_only_the_unit(
        self, build_quick: Build, labelled: Labelled
    ) -> None:
        """Labels in percent instead of fractions change only the unit."""
        codes, scores = labelled
        predictor = build_quick()
        predictor.fit(codes[:40], scores[:40])
        mean, std = predictor.predict(codes[:50])
        predictor.fit(codes[:40], 100 * scores[:40] - 5)
        in_percent, std_in_percent = predictor.predict(codes[:50])
        np.testing.assert_allclose(in_percent, 100 * mean - 5, atol=10 * scores.std())
        np.testing.assert_allclose(std_in_percent, 100 * std, rtol=0.2)

    def test_constant_labels_give_that_constant(
        self, build_quick: Build, labelled: Labelled
    ) -> None:
        """All predictions are that constant, with a standard deviation of 0."""
        codes, _ = labelled
        predictor = build_quick()
        predictor.fit(codes[:20], np.full(20, 0.625))
        mean, std = predictor.predict(codes[:30])
        np.testing.assert_array_equal(mean, 0.625)
        np.testing.assert_array_equal(std, 0.0)

    def test_eight_labels_are_enough_to_run(self, build_quick: Build, labelled: Labelled) -> None:
        """Predictions are finite and near the labels."""
        codes, scores = labelled
        predictor = build_quick()
        predictor.fit(codes[:8], scores[:8])
        mean, std = predictor.predict(codes[:100])
        assert np.isfinite(mean).all() and np.isfinite(std).all() and (std > 0).all()
        assert np.abs(mean - scores[:8].mean()).max() < 10 * scores.std()

    def test_bad_input_is_refused(self, build_quick: Build, labelled: Labelled) -> None:
        """The error is a `UserError` that names the problem."""
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

    def test_works_on_a_restricted_space_with_labels_from_before(
        self, build_quick: Build, labelled: Labelled
    ) -> None:
        """Labels and archs outside the restriction stay valid."""
        codes, scores = labelled
        narrow = tiny_space().restrict({"stage0.depth": (2, 3)})
        predictor = build_quick(space=narrow)
        predictor.fit(codes[:40], scores[:40])
        full = build_quick()
        full.fit(codes[:40], scores[:40])
        np.testing.assert_allclose(predictor.predict(codes)[0], full.predict(codes)[0], atol=1e-6)
