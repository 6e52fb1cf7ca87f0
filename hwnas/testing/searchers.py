"""Contract tests of searchers: `interfaces.Searcher`."""

from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np
import pytest

from hwnas.interfaces import FloatArray, Searcher, SearcherContext, SearcherModule
from hwnas.searchers import random as uniform
from hwnas.spaces.choice import Value
from hwnas.spaces.space import Codes, SearchSpace
from hwnas.testing.suite import Suite, tiny_space

__all__ = ["SearcherSuite", "play", "separable"]

NARROWED = {
    "resolution": (24,),
    "stage0.depth": (2, 3),
    "stage1.block0.kernel": (5,),
    "stage2.width": (64, 80),
}


def separable(space: SearchSpace, codes: Codes, seed: int = 0) -> FloatArray:
    """A standardised score [n] that is a sum over active choices."""
    weights = np.random.default_rng(seed).normal(size=(len(space.choices), 8))

    def raw(codes: Codes) -> FloatArray:
        columns = np.arange(codes.shape[1])
        return np.asarray((weights[columns, codes] * space.active(codes)).sum(axis=1))

    reference = raw(space.sample(2000, rng=np.random.default_rng(1)))
    return np.asarray((raw(codes) - reference.mean()) / reference.std())


def play(searcher: Searcher, space: SearchSpace, sizes: list[int]) -> list[Codes]:
    """Returns the proposals of a searcher: sum(sizes) archs, or fewer if it has no more."""
    asked: list[Codes] = []
    while missing := sum(sizes) - sum(map(len, asked)):
        asked.append(searcher.ask(min(missing, sizes[len(asked) % len(sizes)])))
        if not len(asked[-1]):
            break
        searcher.tell(asked[-1], separable(space, asked[-1]))
    return asked


def _build(variant: Any, config: Any, space: SearchSpace, seed: int = 0) -> Searcher:
    searcher: Searcher = variant.build(config, SearcherContext(space, seed))
    return searcher


class SearcherSuite(Suite):
    """Contract of a searcher.

    `PROMISES` are the tests of the quality of the results. A slow searcher can be exempt from these
    tests, and from no others.
    """

    CONTRACT = SearcherModule
    PROMISES = frozenset({"beats_random", "finds_the_best"})

    @pytest.mark.parametrize("kept", [{}, NARROWED], ids=["full", "restricted"])
    def test_proposals_are_canonical_archs_of_the_space(
        self, variant: Any, config: Any, kept: dict[str, tuple[int, ...]]
    ) -> None:
        """Proposals are codes of the space, int16, and respect its restrictions."""
        space = tiny_space().restrict(kept)
        if kept:
            assert not space.validate(tiny_space().sample(50, rng=np.random.default_rng(0))).all()
        for codes in play(_build(variant, config, space), space, [64] * 12):
            assert codes.dtype == np.int16
            assert space.validate(codes).all()

    @pytest.mark.parametrize("n", [0, 1, 2, 7, 300])
    def test_never_proposes_more_than_asked(self, variant: Any, config: Any, n: int) -> None:
        """`ask(n)` returns between one and n archs as long as there are any."""
        space = tiny_space()
        searcher = _build(variant, config, space)
        assert sum(map(len, play(searcher, space, [80]))) == 80
        codes = searcher.ask(n)
        assert min(n, 1) <= len(codes) <= n
        assert codes.shape[1] == len(space.choices)

    def test_deterministic_in_the_seed(self, variant: Any, config: Any) -> None:
        """Equal seeds propose equal archs, and different seeds propose different archs."""
        space = tiny_space()
        first, again, other = (
            np.concatenate(play(_build(variant, config, space, seed), space, [48] * 5))
            for seed in (3, 3, 4)
        )
        np.testing.assert_array_equal(first, again)
        assert (first != other).any()

    @pytest.mark.parametrize("n_before", [0, 1, 4])
    def test_state_continues_identically(self, variant: Any, config: Any, n_before: int) -> None:
        """A searcher that is restored from JSON, at the start or later, proposes the same archs."""
        space = tiny_space()
        whole = _build(variant, config, space)
        play(whole, space, [48] * n_before)
        state = json.loads(json.dumps(whole.state(), allow_nan=False))
        resumed = _build(variant, config, space)
        resumed.load_state(state)
        assert resumed.state() == state
        for expected, found in zip(
            play(whole, space, [48] * 4), play(resumed, space, [48] * 4), strict=True
        ):
            np.testing.assert_array_equal(found, expected)

    def test_beats_random_at_equal_budget(self, variant: Any, config: Any) -> None:
        """The best of 1,920 proposals is 0.3 standard deviations above that of random search."""
        self.promised(variant, "beats_random")
        space = tiny_space()
        best = []
        for module, settings in ((variant, config), (uniform, uniform.Config())):
            scores = []
            for seed in range(3):
                asked = play(_build(module, settings, space, seed), space, [64] * 30)
                scores.append(separable(space, np.concatenate(asked)).max())
            best.append(float(np.median(scores)))
        assert best[0] > best[1] + 0.3

    def test_finds_the_best_of_an_enumerable_space(self, variant: Any, config: Any) -> None:
        """1,280 proposals include the best of the 126 archs of a space."""
        self.promised(variant, "finds_the_best")
        one = {choice.name: choice.values[:1] for choice in tiny_space().choices}
        free: dict[str, tuple[Value, ...]] = {
            "resolution": (16, 24),
            "stage0.width": (16, 24, 32),
            "stage1.depth": (1, 2),
            "stage1.block1.kernel": (3, 5),
            "stage1.block1.expand": (2, 4, 6),
            "stage2.block0.expand": (2, 4, 6),
        }
        space = tiny_space().restrict(one | free)
        grid = np.array(list(itertools.product(*space.allowed)), dtype=np.int16)
        everything = np.unique(space.normalise(grid), axis=0)
        assert len(everything) == space.size() == 2 * 3 * 3 * (1 + 2 * 3)
        optimum = separable(space, everything).max()
        asked = np.concatenate(play(_build(variant, config, space), space, [32] * 40))
        assert separable(space, asked).max() == optimum
