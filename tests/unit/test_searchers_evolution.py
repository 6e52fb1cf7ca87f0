"""Who survives, and the bounds of random search."""

from __future__ import annotations

import numpy as np
import pytest

from hwnas.core.pareto import non_dominated
from hwnas.interfaces import SearcherContext
from hwnas.searchers import evolution, random
from hwnas.spaces import mobilenet_tiny

SPACE = mobilenet_tiny.build(mobilenet_tiny.Config(resolutions=(16,)), num_classes=10)


def test_elitist_survivors_are_the_best_distinct_archs_ever_told() -> None:
    config = evolution.Config(population=8)
    searcher = evolution.build(config, SearcherContext(SPACE, 0))
    told: dict[bytes, float] = {}
    for _ in range(6):
        codes = searcher.ask(10)
        rewards = codes.sum(axis=1) + codes[:, 2] / 16
        told.update(zip(SPACE.keys(codes), rewards.tolist()))
        searcher.tell(codes, rewards)
    kept = np.array(searcher.state()["codes"], dtype=np.int16)
    assert len(set(SPACE.keys(kept))) == len(kept) == 8
    assert sorted(searcher.state()["rewards"]) == sorted(told.values())[-8:]


def test_aging_keeps_the_youngest_whatever_their_reward() -> None:
    searcher = evolution.build(
        evolution.Config(population=8, survival="aging"), SearcherContext(SPACE, 0)
    )
    asked = []
    for generation in range(4):
        asked.append(searcher.ask(5))
        searcher.tell(asked[-1], np.full(len(asked[-1]), -float(generation)))
    np.testing.assert_array_equal(searcher.state()["codes"], np.concatenate(asked)[-8:])


def test_children_do_not_repeat_the_population() -> None:
    searcher = evolution.build(evolution.Config(population=32), SearcherContext(SPACE, 0))
    first = searcher.ask(32)
    searcher.tell(first, np.zeros(32))
    children = searcher.ask(200)
    assert not set(SPACE.keys(first)) & set(SPACE.keys(children))
    assert len(set(SPACE.keys(children))) == 200


@pytest.mark.parametrize("size", [1, 3])
def test_parents_win_tournaments(size: int) -> None:
    """The best of k uniform draws of 10 has rank r with ((r + 1) ** k - r ** k) / 10 ** k."""
    config = evolution.Config(population=10, tournament=size, survival="aging")
    searcher = evolution.build(config, SearcherContext(SPACE, 0))
    searcher.tell(searcher.ask(10), np.arange(10.0))
    parents = searcher._parents(np.random.default_rng(0), 20_000)
    known = SPACE.keys(np.array(searcher.state()["codes"], dtype=np.int16))
    counts = np.bincount([known.index(key) for key in SPACE.keys(parents)], minlength=10)
    ranks = np.arange(10)
    shares = ((ranks + 1) ** size - ranks**size) / 10**size
    np.testing.assert_allclose(counts / 20_000, shares, atol=0.015)  # four deviations


def test_random_search_exhausts_a_small_space_without_repeats_and_stops() -> None:
    one = {choice.name: choice.values[:1] for choice in SPACE.choices}
    space = SPACE.restrict(one | {"stage0.width": (16, 24, 32), "stage1.depth": (1, 2)})
    searcher = random.build(random.Config(), SearcherContext(space, 0))
    asked = [searcher.ask(4) for _ in range(4)]
    assert [len(codes) for codes in asked] == [4, 2, 0, 0]
    assert len(set(space.keys(np.concatenate(asked)))) == space.size() == 6
    resumed = random.build(random.Config(), SearcherContext(space, 0))
    resumed.load_state({"asked": [4]})
    np.testing.assert_array_equal(resumed.ask(6), asked[1])  # it remembers what it proposed


def test_front_survivors_are_the_least_dominated_and_feasible_first() -> None:
    """Every arch that no told feasible one dominates survives; infeasible ones fill the rest."""
    searcher = evolution.build(
        evolution.Config(population=30, survival="front"), SearcherContext(SPACE, 0)
    )
    told: dict[bytes, tuple[float, float]] = {}
    for _ in range(6):
        codes = searcher.ask(40)
        score = codes[:, 4:10].sum(axis=1) + codes[:, 0] / 9
        points = np.stack([-score, 0.2 + codes.sum(axis=1) / 24], axis=1)
        told.update(zip(SPACE.keys(codes), map(tuple, points.tolist())))
        searcher.tell(codes, score, points)
    state = searcher.state()
    kept = np.array(state["objectives"])
    values = np.array([point for point in told.values() if point[1] <= 1])
    front = np.unique(values[non_dominated(values)], axis=0)
    assert 3 < len(front) <= 30
    assert {tuple(point) for point in front} <= {tuple(point) for point in kept}
    feasible = kept[:, 1] <= 1
    assert feasible.all() or len(values) < 30  # none that is not, while there are others


def test_spread_proposals_reach_both_ends_of_the_costs() -> None:
    first = evolution.build(evolution.Config(survival="front"), SearcherContext(SPACE, 0)).ask(64)
    assert SPACE.validate(first).all()
    assert SPACE.arch(first[0]) == SPACE.smallest() and SPACE.arch(first[-1]) == SPACE.largest()


def test_spread_proposals_of_small_generations_fill_the_population_evenly() -> None:
    """With one arch per generation (before: always the smallest, so the population stayed at 1)."""
    config = evolution.Config(survival="front", population=32)
    searcher = evolution.build(config, SearcherContext(SPACE, 0))
    last = sum(len(allowed) - 1 for allowed in SPACE.allowed)
    sizes = []
    for _ in range(32):
        codes = searcher.ask(1)
        sizes.append(codes.sum() / last)
        searcher.tell(codes, np.zeros(1), np.array([[0.0, 0.5]]))
    assert len(searcher.state()["codes"]) >= 28
    counts, _ = np.histogram(sizes, bins=4, range=(0, 1))
    assert counts.min() >= 4
