"""No device keeps a winner that another device's winner beats on it, unless it is reported."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hwnas.controller.exchange import exchanged
from hwnas.controller.result import Candidate, SearchResult
from hwnas.core.records import dump, load
from hwnas.measure.winner_matrix import WinnerMatrix, winner_matrix
from hwnas.pipeline.outcomes import NetworkResult, Results
from hwnas.spaces.arch import Arch

DEVICES = ("phone", "board")
PHONE, BOARD = Arch("space", (0, 1)), Arch("space", (1, 0))


def candidate(arch: Arch, score: float, phone: float, board: float, macs: float = 1.0) -> Candidate:
    costs = {"latency_ms@phone": phone, "latency_ms@board": board, "macs": macs}
    return Candidate(arch, score, score, 0.0, None, True, costs)


def result(winner: Candidate, limits: dict[str, float]) -> SearchResult:
    return SearchResult("s", winner, (winner,), {}, None, limits, 1, 1, 1, 0)


LIMITS = {"phone": {"latency_ms@phone": 10.0}, "board": {"latency_ms@board": 20.0, "macs": 1.5}}


def exchange(phone: Candidate, board: Candidate) -> dict[str, SearchResult]:
    found = {"phone": result(phone, LIMITS["phone"]), "board": result(board, LIMITS["board"])}
    return exchanged(found)


def test_a_winner_that_is_beaten_on_its_own_device_is_replaced() -> None:
    better = candidate(PHONE, 0.9, phone=8, board=15)
    found = exchange(better, candidate(BOARD, 0.8, phone=9, board=16))
    assert found["board"].winner == better and found["board"].found_by == "phone"
    assert [one.arch for one in found["board"].top] == [PHONE, BOARD]
    assert found["phone"].winner == better and found["phone"].found_by is None
    assert load(SearchResult, dump(found["board"]), where="test") == found["board"]


@pytest.mark.parametrize(
    ("score", "board_ms", "macs"),
    [(0.7, 15, 1), (0.8, 15, 1), (0.9, 17, 1), (0.9, 16, 1), (0.9, 15, 1.6)],
    ids=["worse", "as good", "slower", "as fast", "over another limit"],
)
def test_one_that_is_not_stays(score: float, board_ms: float, macs: float) -> None:
    own = candidate(BOARD, 0.8, phone=12, board=16)
    found = exchange(candidate(PHONE, score, phone=8, board=board_ms, macs=macs), own)
    assert found["board"].winner == own and found["board"].found_by is None


def test_a_winner_over_its_devices_limit_is_replaced_by_none_that_is_over_it_too() -> None:
    own = candidate(BOARD, 0.8, phone=12, board=25)
    found = exchange(candidate(PHONE, 0.9, phone=8, board=21), own)
    assert found["board"].winner == own


# --- as measured ----------------------------------------------------------------------------------


def row(device: str, arch: Arch, ms: float, pace: float = 1.0) -> NetworkResult:
    return NetworkResult(
        "x", device, arch, 0.9, 100, 1, 1, ms, (ms, ms), ms, 0.02, None, None, pace=pace
    )


def matrix(
    board_of_phone: float = 15,
    score: float = 0.9,
    pace: float = 1.0,
    other: Arch = BOARD,
    found_by: str | None = None,
) -> WinnerMatrix:
    """`board_of_phone`: ms of the phone's winner, of that `score`, on the board."""
    rows = [row("phone", PHONE, 8), row("board", PHONE, board_of_phone, pace=pace)]
    rows += [row("phone", other, 9), row("board", other, 16, pace=pace)] if other != PHONE else []
    winners = {"phone": candidate(PHONE, score, 8, 15), "board": candidate(other, 0.8, 9, 16)}
    found = winner_matrix(rows, winners, {"phone": None, "board": found_by})
    assert found is not None
    return found


def test_a_rival_is_faster_beyond_repeat_noise_and_better() -> None:
    """Repeat noise is 2 %: of 16 ms, 15.68 ms is the bound."""
    assert matrix(15.6).rivals(1) == (0,)
    assert matrix(15.7).rivals(1) == ()
    assert matrix(15.6, score=0.8).rivals(1) == ()
    assert matrix(15.6).rivals(0) == ()
    (told,) = matrix(15.6).notes()
    assert "on board, the winner of phone is faster than its own winner (15.6 ms, own 16 ms" in told
    assert matrix(15.7).notes() == (
        "on no device is a winner of another device both faster (by more than the repeat"
        " noise) and of higher score than the device's own winner",
    )


def test_a_machine_at_another_pace_is_not_judged() -> None:
    found = matrix(10, pace=1.4)
    assert found.judged == (True, False) and found.rivals(1) == ()
    assert found.notes() == ("winners on board are not compared: its speed differs from its table",)


def test_winners_that_coincide_and_winners_from_elsewhere_are_named() -> None:
    found = matrix(16, other=PHONE, found_by="phone")
    assert found.same == (("phone", "board"),)
    same, moved, none = found.notes()
    assert same == "the winners on phone and board are the same network"
    assert "the winner on board was found by the search for phone" in moved and "no device" in none


def test_every_winner_is_priced_and_timed_on_every_device_and_kept_with_the_results() -> None:
    found = matrix()
    assert found.measured_ms == ((8, 9), (15, 16)) == found.forecast_ms
    stored = Results((), (), {}, found)
    assert load(Results, dump(stored), where="test") == stored
    old = {key: value for key, value in dump(stored).items() if key != "winners"}
    assert load(Results, old, where="test") == replace(stored, winners=None)
    assert winner_matrix([], {"phone": candidate(PHONE, 1, 1, 1)}, {}) is None
