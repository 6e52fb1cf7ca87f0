"""The sentence on the most probable arch of a policy."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hwnas.controller.result import Candidate, SearchResult
from hwnas.spaces.arch import Arch
from hwnas.studies.search_facts import mode_note

LIMIT = {"latency_ms@phone": 10.0}
WINNER = Candidate(Arch("space", (0, 1)), 0.9, 0.8, 0.1, 0.9, True, {"latency_ms@phone": 9.0})
MODE = replace(WINNER, arch=Arch("space", (1, 0)), score=0.7)


def note(mode: Candidate | None) -> str:
    return mode_note(SearchResult("s", WINNER, (WINNER,), {}, mode, LIMIT, 1, 70, 64, 8))


def test_nothing_is_said_without_a_policy() -> None:
    assert note(None) == ""


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({}, "its score is 0.2 lower (a policy maximises the mean reward"),
        ({"costs": {"latency_ms@phone": 10.5}}, "it exceeds the limit on latency_ms@phone by 5.0%"),
        ({"supernet": None}, "it was not evaluated, because 8 archs were more promising"),
        ({"feasible": False}, "it cannot be evaluated"),
        ({"score": 0.9}, "its score is equal: the search found the winner before it"),
        ({"score": 1.0}, "its score is 0.1 higher"),
    ],
)
def test_the_reason_why_it_is_not_the_winner(change: dict[str, object], part: str) -> None:
    found = note(replace(MODE, **change))
    assert found.startswith(f"{MODE.arch.key}, not the winner")
    assert part in found


def test_the_winner_itself() -> None:
    assert note(replace(MODE, arch=WINNER.arch)) == "the winner"
