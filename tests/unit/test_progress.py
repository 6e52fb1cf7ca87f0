"""Time left and one progress for work in parts: against closed forms, with a clock of the test."""

from __future__ import annotations

import itertools

import pytest

from hwnas.core.progress import MOST_SEEN, Outlook, Pace, Parts, duration, silent


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def left_after(seconds: list[float], total: int, *, expected: float | None = None) -> float | None:
    """What is said after units that took these seconds."""
    clock = Clock()
    pace = Pace(expected, clock)
    found = pace.left(0, total)
    for done, taken in enumerate(seconds, start=1):
        clock.now += taken
        found = pace.left(done, total)
    return found


def test_the_first_unit_does_not_count() -> None:
    """It warms up: 50 s of it once made 400 steps of 0.5 s look like 5 hours."""
    assert left_after([50.0, *[0.5] * 9], 400) == pytest.approx(390 * 0.5)


def test_work_of_earlier_sessions_does_not_count() -> None:
    clock = Clock()
    pace = Pace(None, clock)
    pace.left(300, 400)
    for done in range(301, 311):
        clock.now += 1.0
        found = pace.left(done, 400)
    assert found == pytest.approx(90.0)


def test_of_steps_that_become_more_expensive_the_later_ones_count() -> None:
    assert left_after([1.0] * 50 + [4.0] * 51, 200) == pytest.approx(4.0 * 99, rel=0.05)


def test_at_first_the_estimate_counts_then_the_pace() -> None:
    assert left_after([], 100, expected=200.0) == 200.0
    assert left_after([9.0], 100, expected=200.0) == pytest.approx(198.0)
    early = left_after([1.0] * 6, 100, expected=200.0)
    assert early is not None and 94 < early < 188, "a blend of 94 s and 188 s"
    assert left_after([1.0] * 20, 100, expected=200.0) == pytest.approx(80.0)


def test_without_an_estimate_nothing_is_said_at_once() -> None:
    assert left_after([], 100) is None and left_after([3.0, 0.1], 100) is None
    assert left_after([1.0] * 100, 100) == 0.0


def test_long_work_is_remembered_in_little_space() -> None:
    clock = Clock()
    pace = Pace(None, clock)
    for done in range(3 * MOST_SEEN):
        clock.now += 1.0
        found = pace.left(done, 4 * MOST_SEEN)
    assert len(pace._seen) <= MOST_SEEN and found == pytest.approx(MOST_SEEN + 1, rel=0.02)


def test_parts_go_on_where_the_one_before_ended_and_never_back() -> None:
    told: list[tuple[int, int, str]] = []
    parts = Parts(lambda *report: told.append(report), [20, 0, 100])
    for done in range(6):
        parts.part(0)(done, 5, "head")
    parts.part(1)(0, 1)
    for done in (0, 3, 2, 10):  # a forecast of the whole may shrink
        parts.part(2, "timing")(done, 10, "x")
    assert [done for done, _, _ in told] == [0, 4, 8, 12, 16, 20, 20, 20, 50, 50, 120]
    assert {total for _, total, _ in told} == {120}
    assert told[0][2] == "head" and told[-1][2] == "timing, x"


def test_the_outlook_of_a_command_is_what_comes_after_a_stage() -> None:
    outlook = Outlook({"train": 60.0, "label": 30.0, "verify": 5.0})
    assert [outlook.after(stage) for stage in outlook.seconds] == [35.0, 5.0, 0.0]
    assert outlook.after("other") == 0.0 and outlook.said("other") == ""
    assert outlook.said("train") == ", about 60 s, 95 s for all stages that are left"
    assert outlook.said("verify") == ", about 5 s"
    told: list[tuple[float | None, float]] = []

    class Shown:
        def __call__(self, done: int, total: int, note: str = "") -> None: ...

        def expect(self, seconds: float | None, later: float) -> None:
            told.append((seconds, later))

    shown = Shown()
    assert outlook.tell(shown, "label") is shown and outlook.tell(silent, "label") is silent
    assert told == [(30.0, 5.0)]


def test_a_duration_reads_as_people_say_it() -> None:
    said = [duration(seconds) for seconds in (0.4, 59.6, 119, 120, 3600, 7200, 86400, 200_000)]
    assert said == ["0 s", "60 s", "119 s", "2 min", "60 min", "2.0 h", "24.0 h", "2.3 days"]
    assert not [a for a, b in itertools.pairwise(said) if a == b]
