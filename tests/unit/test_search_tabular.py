"""Searches on records: half a space with a known accuracy for every arch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hwnas.controller.controller import run_search
from hwnas.controller.result import SearchResult
from hwnas.controller.sections import SearchConfig
from hwnas.core.errors import UserError
from hwnas.interfaces import Constraint, FloatArray, PredictorContext, SearcherContext
from hwnas.pipeline.costs import cost_metrics
from hwnas.pipeline.evaluators import TabularEvaluator, TabularRescoring
from hwnas.predictors import ridge
from hwnas.predictors.records import Records
from hwnas.searchers import policy_gradient
from hwnas.spaces.cost import cost
from hwnas.spaces.enumeration import unrank
from hwnas.spaces.load import build_space
from hwnas.spaces.space import Codes

SPACE = build_space("nasbench_macro", num_classes=10)
CONFIG = SearchConfig(
    constraints=(Constraint("macs", max_fraction_of_largest=0.5),),
    n_predictions=1280,
    generation_size=64,
    n_evaluations=60,
    evaluate_every=2,
    exploration=1.0,
)


def accuracy(codes: Codes) -> FloatArray:
    """Grows with each layer's operator, with diminishing returns and an interaction."""
    gains = np.random.default_rng(0).random((codes.shape[1], 3)).cumsum(axis=1)
    total = gains[np.arange(codes.shape[1]), codes].sum(axis=1)
    return np.asarray(0.95 - 0.6 * np.exp(-0.15 * total) - 0.01 * (codes[:, -1] == codes[:, -2]))


def half() -> Records:
    everything = unrank(SPACE, np.arange(SPACE.size()))
    kept = np.sort(np.random.default_rng(1).permutation(len(everything))[: len(everything) // 2])
    return Records(SPACE, everything[kept], accuracy(everything[kept]), "test_acc", 0)


def search(folder: Path, seed: int = 0, kill_at: float = np.inf) -> SearchResult:
    def progress(done: int, total: int, note: str = "") -> None:
        if done >= kill_at:
            raise KeyboardInterrupt

    return run_search(
        SPACE,
        policy_gradient.build(policy_gradient.Config(), SearcherContext(SPACE, seed)),
        predict=None,
        metrics=cost_metrics(SPACE, {}),
        config=CONFIG,
        seed=seed,
        folder=folder,
        rescoring=TabularRescoring(
            half(), SPACE, lambda: ridge.build(ridge.Config(), PredictorContext(SPACE, seed))
        ),
        progress=progress,
    )


def test_evaluations_are_the_recorded_accuracies() -> None:
    records = half()
    evaluator = TabularEvaluator(records, SPACE)
    for row in (0, 1, len(records) - 1):
        found = evaluator.evaluate(SPACE.arch(records.codes[row]))
        assert (found.top1, found.source) == (records.scores[row], "trained")
    everything = unrank(SPACE, np.arange(SPACE.size()))
    held = evaluator.admits(everything)
    assert held.sum() == len(records)
    with pytest.raises(UserError, match="not in the records"):
        evaluator.evaluate(SPACE.arch(everything[~held][0]))


def test_records_of_another_space_are_refused() -> None:
    other = build_space("nasbench_macro", num_classes=100)
    with pytest.raises(UserError, match="another space"):
        TabularEvaluator(half(), other)


def test_the_search_beats_random_evaluations_and_pays_for_recorded_archs_only(
    tmp_path: Path,
) -> None:
    records = half()
    macs = cost(SPACE, records.codes, "macs")
    feasible = macs <= 0.5 * cost(SPACE, SPACE.codes([SPACE.largest()]), "macs")[0]
    best = records.scores[feasible].max()
    held = set(SPACE.keys(records.codes))
    regret, random_regret = [], []
    for seed in range(5):
        result = search(tmp_path / str(seed), seed)
        assert result.n_evaluations == CONFIG.n_evaluations
        keys = SPACE.keys(SPACE.codes([candidate.arch for candidate in result.top]))
        assert set(keys) <= held
        assert all(candidate.feasible for candidate in result.top)
        regret.append(best - accuracy(SPACE.codes([result.winner.arch]))[0])
        drawn = np.random.default_rng(seed).permutation(np.flatnonzero(feasible))
        random_regret.append(best - records.scores[drawn[: CONFIG.n_evaluations]].max())
    assert np.median(regret) < 0.25 * np.median(random_regret)


def test_a_killed_search_ends_as_if_it_was_not(tmp_path: Path) -> None:
    straight = search(tmp_path / "straight")
    for kill_at in (64, 512, 1280):
        with pytest.raises(KeyboardInterrupt):
            search(tmp_path / str(kill_at), kill_at=kill_at)
        assert search(tmp_path / str(kill_at)) == straight


def test_constraints_that_no_recorded_arch_meets_are_explained(tmp_path: Path) -> None:
    """The space has such archs, so they are not impossible; the records do not."""
    records = half()
    macs = cost(SPACE, records.codes, "macs")
    dear = np.flatnonzero(macs > np.quantile(macs, 0.9))
    rich = Records(SPACE, records.codes[dear], records.scores[dear], "test_acc", 0)
    with pytest.raises(UserError, match="meet the constraints and can be evaluated"):
        run_search(
            SPACE,
            policy_gradient.build(policy_gradient.Config(), SearcherContext(SPACE, 0)),
            predict=None,
            metrics=cost_metrics(SPACE, {}),
            config=CONFIG,
            seed=0,
            folder=tmp_path,
            rescoring=TabularRescoring(
                rich, SPACE, lambda: ridge.build(ridge.Config(), PredictorContext(SPACE, 0))
            ),
        )
