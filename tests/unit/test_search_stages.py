"""A search in stages: what varies, what is held, and budgets; against a known optimum."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hwnas.controller.controller import run_search
from hwnas.controller.result import SearchResult
from hwnas.controller.sections import SearchConfig
from hwnas.controller.staged import check_stages, search_in_stages
from hwnas.core.config import build_model
from hwnas.core.errors import UserError
from hwnas.interfaces import SearcherContext
from hwnas.searchers import evolution
from hwnas.spaces.cost import cost
from hwnas.spaces.mobilenet_v4 import Config, build
from hwnas.spaces.space import Codes, SearchSpace

SPACE = build(Config(resolutions=(128,)), num_classes=10)
COARSE, FINE = {"free": ["*.width", "*.depth"]}, {"free": ["*.start", "*.kernel"]}
LIMIT = 0.5 * float(cost(SPACE, SPACE.codes([SPACE.largest()]), "macs")[0])
HELD = {"*.start": 0, "*.kernel": 3, "*.expand": 4}


def config(**settings: Any) -> SearchConfig:
    plain = {
        "stages": [COARSE, FINE],
        "held": HELD,
        "n_predictions": 300,
        "generation_size": 20,
        "n_evaluations": 9,
        "constraints": [{"metric": "macs", "max": LIMIT}],
    }
    return build_model(SearchConfig, plain | settings, where="test")


class Searches:
    """Runs every stage; what it was given."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.seen = folder, []

    def __call__(self, space: SearchSpace, part: SearchConfig, number: int) -> SearchResult:
        result = run_search(
            space,
            evolution.build(evolution.Config(population=10), SearcherContext(space, 0)),
            predict=predict,
            metrics={"macs": lambda codes: cost(SPACE, codes, "macs")},
            config=part,
            seed=0,
            folder=self.folder / str(number),
        )
        self.seen.append((space, part, result))
        return result


def predict(codes: Codes) -> tuple[Any, Any]:
    """Prefers a wide network whose blocks have a depthwise convolution before the expansion."""
    value = {c.name: np.array(c.values, dtype=float)[codes[:, i]] for i, c in COLUMNS}
    active = SPACE.active(codes)
    score = sum(value[c.name] / 100 for _, c in COLUMNS if c.name.endswith("width"))
    score = score + sum(
        np.where(active[:, i], value[c.name], 0) for i, c in COLUMNS if c.name.endswith("start")
    )
    return score, np.full(len(codes), 0.1)


COLUMNS = [(i, c) for i, c in enumerate(SPACE.choices) if not isinstance(c.values[0], str)]


def values(codes: Codes, ending: str) -> set[Any]:
    """Values of the active choices with this ending."""
    active = SPACE.active(codes)
    return {
        c.values[code]
        for i, c in enumerate(SPACE.choices)
        if c.name.endswith(ending)
        for code in codes[active[:, i], i]
    }


def test_the_first_stage_holds_what_is_said_and_the_next_the_best_so_far(tmp_path: Path) -> None:
    run = Searches(tmp_path)
    result = search_in_stages(SPACE, config(), run)
    (first, _, coarse), (second, _, fine) = run.seen
    drawn = first.sample(200, seed=0)
    assert values(drawn, ".start") == {0} and values(drawn, ".kernel") == {3}
    assert values(drawn, ".expand") == {4} and len(values(drawn, "stage2.width")) == 3
    drawn, best = second.sample(200, seed=0), SPACE.codes([coarse.winner.arch])
    for ending in (".width", ".depth", ".expand"):
        assert values(drawn, ending) == values(best, ending)
    assert values(drawn, ".start") == {0, 3, 5}
    assert fine.winner.score > coarse.winner.score
    assert result.winner == fine.winner and SPACE.check(result.winner.arch)
    assert [c.score for c in result.top] == sorted((c.score for c in result.top), reverse=True)


def test_stages_have_the_budgets_of_one_search(tmp_path: Path) -> None:
    run = Searches(tmp_path)
    settings = config(stages=[COARSE | {"share": 2}, FINE], max_seconds=90.0)
    result = search_in_stages(SPACE, settings, run)
    parts = [part for _, part, _ in run.seen]
    assert [part.n_predictions for part in parts] == [200, 100]
    assert [part.n_evaluations for part in parts] == [6, 3]
    assert [part.max_seconds for part in parts] == [60.0, 30.0]
    assert result.n_proposals == sum(found.n_proposals for *_, found in run.seen) == 300


def test_a_stage_that_finds_nothing_better_leaves_the_winner_of_the_one_before(
    tmp_path: Path,
) -> None:
    run = Searches(tmp_path)
    stages = [{"free": ["*.start", "*.width"]}, {"free": ["*.expand"]}]
    result = search_in_stages(SPACE, config(stages=stages), run)
    (*_, first), (*_, second) = run.seen
    assert result.winner.score == max(first.winner.score, second.winner.score)
    front = result.fronts["macs"]
    assert [c.costs["macs"] for c in front] == sorted(c.costs["macs"] for c in front)
    assert all(a.score < b.score for a, b in pairwise(front))


@pytest.mark.parametrize(
    ("settings", "where"),
    [
        ({"stages": [COARSE, {"free": ["*.witdh"]}]}, "search.stages.1.free.0"),
        ({"held": {"*.start": 2}}, r"search\.held\.\*\.start"),
        ({"held": {"*.starts": 0}}, r"search\.held"),
        ({"stages": []}, "search.held"),
        ({"n_evaluations": 1}, "search.n_evaluations"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: dict[str, Any], where: str) -> None:
    check_stages(SPACE, config())
    with pytest.raises(UserError, match=where):
        check_stages(SPACE, config(**settings))
