"""What every searcher promises, checked for each name in the registry."""

from __future__ import annotations

import itertools
import json
from types import ModuleType

import numpy as np
import pytest

from hwnas.interfaces import FloatArray, Searcher, SearcherContext
from hwnas.searchers import REGISTRY
from hwnas.spaces import mobilenet_tiny
from hwnas.spaces.space import Codes, SearchSpace

SPACE = mobilenet_tiny.build(mobilenet_tiny.Config(resolutions=(16, 20)), num_classes=10)
NARROW = SPACE.restrict(
    {
        "resolution": (20,),
        "stage0.depth": (2, 3),
        "stage1.block0.kernel": (5,),
        "stage2.width": (64, 80),
    }
)


LEARN_NOTHING = {"random", "exhaustive"}
ALL_OR_NOTHING = {"exact"}  # answers after its last probe; test_searchers_exact.py is its oracle
FOREIGN = {"optuna", "pymoo"}  # what they find is their makers' to promise


def load(name: str) -> ModuleType:
    missing = REGISTRY.describe(name).missing
    if missing:
        pytest.skip(f"{name} needs {', '.join(missing)}: pip install 'hwnas[bench]'")
    return REGISTRY.load(name)


@pytest.fixture(params=REGISTRY.names)
def module(request: pytest.FixtureRequest) -> ModuleType:
    return load(request.param)


def build(module: ModuleType, space: SearchSpace, seed: int = 0) -> Searcher:
    searcher: Searcher = module.build(module.Config(), SearcherContext(space, seed))
    return searcher


def separable(space: SearchSpace, codes: Codes, seed: int = 0) -> FloatArray:
    """A score that is a sum over active choices, standardised over uniform archs."""
    weights = np.random.default_rng(seed).normal(size=(len(space.choices), 8))

    def raw(codes: Codes) -> FloatArray:
        columns = np.arange(codes.shape[1])
        return np.asarray((weights[columns, codes] * space.active(codes)).sum(axis=1))

    reference = raw(space.sample(np.random.default_rng(1), 2000))
    return np.asarray((raw(codes) - reference.mean()) / reference.std())


def play(searcher: Searcher, space: SearchSpace, sizes: list[int]) -> list[Codes]:
    """All asks of a searcher until it proposed sum(sizes) archs, or has nothing left."""
    asked: list[Codes] = []
    while missing := sum(sizes) - sum(map(len, asked)):
        asked.append(searcher.ask(min(missing, sizes[len(asked) % len(sizes)])))
        if not len(asked[-1]):
            break
        searcher.tell(asked[-1], separable(space, asked[-1]))
    return asked


def test_config_names_its_module_and_refuses_unknown_keys(module: ModuleType) -> None:
    assert module.Config().name == module.__name__.rsplit(".", 1)[1]
    with pytest.raises(ValueError):
        module.Config(no_such_key=1)


@pytest.mark.parametrize("space", [SPACE, NARROW], ids=["full", "restricted"])
def test_proposals_are_canonical_archs_of_the_space(module: ModuleType, space: SearchSpace) -> None:
    for codes in play(build(module, space), space, [64] * 12):
        assert codes.dtype == np.int16
        assert space.validate(codes).all()


def test_restriction_bites() -> None:
    """The check above can fail: archs of the full space are not all archs of the narrow one."""
    assert not NARROW.validate(SPACE.sample(np.random.default_rng(0), 50)).all()


@pytest.mark.parametrize("n", [0, 1, 2, 7, 300])
def test_never_proposes_more_than_asked(module: ModuleType, n: int) -> None:
    searcher = build(module, SPACE)
    assert sum(map(len, play(searcher, SPACE, [80]))) == 80
    codes = searcher.ask(n)
    assert min(n, 1) <= len(codes) <= n
    assert codes.shape[1] == len(SPACE.choices)


def test_deterministic_in_the_seed(module: ModuleType) -> None:
    first, again, other = (
        np.concatenate(play(build(module, SPACE, seed), SPACE, [48] * 5)) for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize("n_before", [0, 1, 4])
def test_state_continues_identically(module: ModuleType, n_before: int) -> None:
    whole = build(module, SPACE)
    play(whole, SPACE, [48] * n_before)
    state = json.loads(json.dumps(whole.state(), allow_nan=False))
    resumed = build(module, SPACE)
    resumed.load_state(state)
    assert resumed.state() == state
    for expected, found in zip(
        play(whole, SPACE, [48] * 4), play(resumed, SPACE, [48] * 4), strict=True
    ):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "name", sorted(set(REGISTRY.names) - LEARN_NOTHING - ALL_OR_NOTHING - FOREIGN)
)
def test_beats_random_at_equal_budget(name: str) -> None:
    """Best of 1,920 proposals on a separable score, in spreads of that score; margin 0.3."""
    best = {}
    for contender in (name, "random"):
        scores = []
        for seed in range(3):
            asked = play(build(REGISTRY.load(contender), SPACE, seed), SPACE, [64] * 30)
            scores.append(separable(SPACE, np.concatenate(asked)).max())
        best[contender] = float(np.median(scores))
    assert best[name] > best["random"] + 0.3


def test_finds_the_best_of_an_enumerable_space(module: ModuleType) -> None:
    if module.__name__.rsplit(".", 1)[1] in FOREIGN:
        pytest.skip("a foreign strategy: what it finds is its makers' to promise")
    one = {choice.name: choice.values[:1] for choice in SPACE.choices}
    free = {
        "resolution": (16, 20),
        "stage0.width": (16, 24, 32),
        "stage1.depth": (1, 2),
        "stage1.block1.kernel": (3, 5),
        "stage1.block1.expand": (2, 4, 6),
        "stage2.block0.expand": (2, 4, 6),
    }
    space = SPACE.restrict(one | free)
    grid = np.array(list(itertools.product(*space.allowed)), dtype=np.int16)
    everything = np.unique(space.normalise(grid), axis=0)
    assert len(everything) == space.size() == 2 * 3 * 3 * (1 + 2 * 3)
    optimum = separable(space, everything).max()
    asked = np.concatenate(play(build(module, space), space, [32] * 40))
    assert separable(space, asked).max() == optimum
