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

    memory: beyond what is mapped already.
    """

    def hangs(number: int, frame: object) -> None:
        raise TimeoutError("hangs")

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = signal.signal(signal.SIGALRM, hangs)
    resource.setrlimit(resource.RLIMIT_AS, (mapped + memory, hard))
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
