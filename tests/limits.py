"""Limits on time and memory within which a reader of a hostile file must end."""

from __future__ import annotations

import contextlib
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

__all__ = ["bounded"]


@contextlib.contextmanager
def bounded(*, seconds: float, memory: int) -> Iterator[None]:
    """A reader that hangs is interrupted; one that takes more bytes than `memory` runs out of it.

    seconds: of processor time; a reader that waits for something is interrupted after ten times as
        long by the clock.
    memory: beyond what is mapped already.
    """

    def hangs(number: int, frame: object) -> None:
        raise TimeoutError("hangs")

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    timers = {signal.SIGPROF: signal.ITIMER_PROF, signal.SIGALRM: signal.ITIMER_REAL}
    before = {number: signal.signal(number, hangs) for number in timers}
    resource.setrlimit(resource.RLIMIT_AS, (mapped + memory, hard))
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, 10 * seconds)
    try:
        yield
    finally:
        for number, timer in timers.items():
            signal.setitimer(timer, 0)
            signal.signal(number, before[number])
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
