"""A wall clock that jumps by years, and files of such times."""

from __future__ import annotations

import datetime
import os
import random
import time
from pathlib import Path

from hwnas.core import history

DECADE_S = 10 * 365.25 * 24 * 3600


def let_it_jump(seed: int) -> None:
    """From now on, this process is told another decade at every look at the wall clock.

    The monotonic clocks go on as before.
    """
    jumps, steady = random.Random(seed), time.time

    def now() -> float:
        return steady() + jumps.uniform(-DECADE_S, DECADE_S)

    class Jumping(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Jumping:
            return cls.fromtimestamp(now(), tz)

    time.time = now
    time.time_ns = lambda: int(1e9 * now())
    datetime.datetime = history.datetime = Jumping  # type: ignore[misc]


def scatter_times(folder: Path, seed: int) -> None:
    """Gives every file and folder the time that a clock which jumped may have given it."""
    jumps = random.Random(seed)
    for path in sorted(folder.rglob("*")):
        then = time.time() + jumps.uniform(-DECADE_S, DECADE_S)
        os.utime(path, (then, then))
