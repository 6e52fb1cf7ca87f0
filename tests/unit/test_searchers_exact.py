"""Dynamic programming and enumeration against brute force; segments against keep-1."""

from __future__ import annotations

import numpy as np
import pytest

from hwnas.core.errors import UserError
from hwnas.core.pareto import non_dominated
from hwnas.interfaces import FloatArray, Searcher, SearcherContext
from hwnas.searchers import exact, exhaustive, segments
from hwnas.spaces.enumeration import unrank
from hwnas.spaces.index import enumerate_ops, op_sum
from hwnas.spaces.load import build_space
from hwnas.spaces.space import Codes, SearchSpace

FULL = build_space("mobilenet_v3", {"resolutions": [160, 224]}, num_classes=10)
SMALL = FULL.restrict(
    {choice.name: choice.values[:1] for choice in FULL.choices}
    | {
        "resolution": (160, 224),
        "stage1.depth": (2, 3, 4),
        "stage1.block0.kernel": (3, 5),
        "stage1.block2.kernel": (3, 7),
        "stage1.block2.expand": (3, 6),
        "stage1.block3.expand": (3, 4, 6),
        "stage2.depth": (2, 3),
        "stage2.block2.expand": (3, 4, 6),
        "stage5.block1.kernel": (3, 5, 7),
    }
)
MACRO = build_space("nasbench_macro", num_classes=10)


def objectives(space: SearchSpace, codes: Codes, seed: int = 0) -> FloatArray:
    """Minus a sum of random scores per operator, and a sum of random prices over a limit."""
    stream, n = np.random.default_rng(seed), len(enumerate_ops(space))
    score, price = op_sum(space, codes, stream.normal(size=n)), stream.random(n)
    limit = op_sum(space, space.codes([space.smallest(), space.largest()]), price).mean()
    return np.stack([-score, op_sum(space, codes, price) / limit], axis=1)


def play(searcher: Searcher, space: SearchSpace, seed: int, size: int = 100) -> Codes:
    asked = []
    while len(codes := searcher.ask(size)):
        asked.append(codes)
        points = objectives(space, codes, seed)
        searcher.tell(codes, -points[:, 0], points)
    return np.concatenate(asked)


@pytest.mark.parametrize("space", [SMALL, MACRO], ids=["mobile", "macro"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_exact_finds_the_front_of_the_whole_space(space: SearchSpace, seed: int) -> None:
    everything = play(
        exhaustive.build(exhaustive.Config(), SearcherContext(space, 0)), space, seed, 4096
    )
    assert len(np.unique(everything, axis=0)) == len(everything) == space.size()
    truth = objectives(space, everything, seed)
    found = play(exact.build(exact.Config(), SearcherContext(space, 0)), space, seed)
    assert space.validate(found).all()
    assert len(found) < space.size() / 3
    points = objectives(space, found, seed)
    best = truth[truth[:, 1] <= 1, 0].min()
    assert points[points[:, 1] <= 1, 0].min() == best
    front = np.unique(truth[non_dominated(truth)], axis=0)
    np.testing.assert_allclose(np.unique(points[non_dominated(points)], axis=0), front, rtol=1e-9)


def test_exact_handles_spaces_far_beyond_enumeration() -> None:
    space = build_space("mobilenet_v3", {"resolutions": [224]}, num_classes=1000)
    found = play(exact.build(exact.Config(), SearcherContext(space, 0)), space, 0)
    points = objectives(space, found)
    uniform = objectives(space, space.sample(20_000, rng=np.random.default_rng(0)))
    best = points[points[:, 1] <= 1, 0].min()
    assert best < uniform[uniform[:, 1] <= 1, 0].min() - 3 * uniform[:, 0].std()


def test_exact_refuses_what_is_no_sum() -> None:
    searcher = exact.build(exact.Config(), SearcherContext(SMALL, 0))
    with pytest.raises(UserError, match="sums over blocks"):
        while len(codes := searcher.ask(100)):
            points = objectives(SMALL, codes)
            points[:, 0] = -(points[:, 0] ** 2)
            searcher.tell(codes, -points[:, 0], points)


def test_exact_refuses_two_constraints_and_too_many_contexts() -> None:
    searcher = exact.build(exact.Config(), SearcherContext(SMALL, 0))
    codes = searcher.ask(10)
    with pytest.raises(UserError, match="one constraint"):
        searcher.tell(codes, np.zeros(10), np.ones((10, 3)))
    with pytest.raises(UserError, match="too many combinations"):
        exact.build(exact.Config(max_contexts=1), SearcherContext(SMALL, 0))


def test_exhaustive_refuses_what_it_could_never_finish() -> None:
    with pytest.raises(UserError, match="too large"):
        exhaustive.build(exhaustive.Config(), SearcherContext(FULL, 0))


def test_keeping_one_super_cell_is_worse_than_six() -> None:
    """On scores where neighbouring blocks interact, the best beginning alone is a trap."""
    columns = np.flatnonzero([choice.role == "op" for choice in MACRO.choices])

    def score(codes: Codes, seed: int) -> FloatArray:
        pairs = np.random.default_rng(seed).normal(size=(len(columns) - 1, 3, 3))
        first, second = codes[:, columns[:-1]], codes[:, columns[1:]]
        return np.asarray(pairs[np.arange(len(columns) - 1), first, second].sum(axis=1))

    def regret(keep: int, seed: int) -> float:
        config = segments.Config(keep=keep, candidates=30, completions=4)
        searcher = segments.build(config, SearcherContext(MACRO, seed))
        best = -np.inf
        while searcher.state()["pass"] == 0:
            codes = searcher.ask(64)
            searcher.tell(codes, score(codes, seed))
            best = max(best, float(score(codes, seed).max()))
        everything = unrank(MACRO, np.arange(MACRO.size()))
        return float(score(everything, seed).max()) - best

    one, six = (np.mean([regret(keep, seed) for seed in range(12)]) for keep in (1, 6))
    assert six < 0.5 * one
