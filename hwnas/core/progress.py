"""Progress reports of long work, independent of how they are shown, and the time that is left."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

__all__ = ["Expecting", "Outlook", "Pace", "Parts", "Progress", "duration", "silent"]

TRUSTED_SHARE = 0.1
"""Share of the work after which the time left is computed without the expected time."""

MOST_SEEN = 500

UNTRUSTED_S = 2.0
"""Seconds of work to measure before the time left is shown, if no time was expected."""


class Progress(Protocol):
    """A function that shows progress. It can be called at any rate; `note` is a short status."""

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """Shows that `done` of `total` units are finished."""
        ...


@runtime_checkable
class Expecting(Protocol):
    """A Progress that accepts the expected duration of the work before the work begins."""

    def expect(self, seconds: float | None, later: float) -> None:
        """Sets the expected seconds of this work (None: unknown) and of the work after it."""
        ...


def silent(done: int, total: int, note: str = "") -> None:
    """A Progress that shows nothing."""


class Parts:
    """Combines consecutive pieces of work into one Progress, whose count never decreases.

    sizes: share of each piece in the common count; 0: the piece does not count. Each piece reports
        its own progress in units of its own.
    """

    def __init__(self, progress: Progress, sizes: Sequence[int]) -> None:
        self._progress, self._sizes = progress, [*sizes]
        self._most = 0

    def part(self, number: int, name: str = "") -> Progress:
        """The Progress of piece `number`; `name` precedes its notes."""
        before, size, whole = sum(self._sizes[:number]), self._sizes[number], sum(self._sizes)

        def show(done: int, total: int, note: str = "") -> None:
            share = size * done // total if total else size
            self._most = max(self._most, before + share)
            self._progress(self._most, whole, ", ".join(filter(None, (name, note))))

        return show


@dataclass
class Pace:
    """Estimates the time left of counted work.

    The first unit is ignored, because it often includes a warm-up. Work of earlier sessions is
    ignored, too. Only the later half of the other units counts, because the cost of a step changes
    over time. `expected_s` is an estimate of the seconds of the whole work; it is used at the
    beginning.
    """

    expected_s: float | None = None
    clock: Callable[[], float] = time.monotonic
    _seen: list[tuple[float, int]] = field(default_factory=list, init=False)
    _first: int | None = field(default=None, init=False)

    def left(self, done: int, total: int) -> float | None:
        """Seconds left; None: not known yet."""
        now, n_left = self.clock(), total - done
        if n_left <= 0:
            return 0.0
        if self._first is None or done < self._first:
            self._first, self._seen = done, []
        elif done > self._first and (not self._seen or done > self._seen[-1][1]):
            self._seen.append((now, done))
            if len(self._seen) > MOST_SEEN:
                self._seen = [*self._seen[:-1:2], self._seen[-1]]
        expected = None if self.expected_s is None else self.expected_s * n_left / total
        if len(self._seen) < 2:
            return expected
        begin, end = self._seen[0], self._seen[-1]
        middle = (begin[1] + end[1]) / 2
        since = next(seen for seen in reversed(self._seen[:-1]) if seen[1] <= middle)
        measured = (now - since[0]) / (end[1] - since[1]) * n_left
        if expected is None:
            return measured if now - begin[0] >= UNTRUSTED_S else None
        weight = min(1.0, (end[1] - begin[1]) / total / TRUSTED_SHARE)
        return weight * measured + (1 - weight) * expected


@dataclass
class Outlook:
    """Expected duration of a command: seconds of each stage that it will run, in order.

    It is empty until all checks have passed. Then `execute` adds the stages whose time is known.
    """

    seconds: dict[str, float] = field(default_factory=dict)

    def after(self, stage: str) -> float:
        """Expected seconds of all stages after `stage`."""
        names = [*self.seconds]
        later = names[names.index(stage) + 1 :] if stage in self.seconds else []
        return sum(self.seconds[name] for name in later)

    def said(self, stage: str) -> str:
        """Expected time of a stage as text, to append to a message; empty if unknown."""
        if stage not in self.seconds:
            return ""
        own, later = self.seconds[stage], self.after(stage)
        more = f", {duration(own + later)} for all stages that are left" if later else ""
        return f", about {duration(own)}{more}"

    def tell(self, progress: Progress, stage: str) -> Progress:
        """Passes the expected time of a stage to an `Expecting` progress; returns the progress."""
        if isinstance(progress, Expecting):
            progress.expect(self.seconds.get(stage), self.after(stage))
        return progress


def duration(seconds: float) -> str:
    """A duration as text: `40 s`, `12 min`, `3.5 h`, `2.1 days`."""
    for unit, name in ((86400.0, "days"), (3600.0, "h")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.1f} {name}"
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"
