"""Random state and signal handling of the processes that prepare images."""

from __future__ import annotations

import contextlib
import random
import signal
from collections.abc import Iterator

import numpy as np
import torch

__all__ = ["ignore_interrupts", "own_global_state", "seed_globals"]


@contextlib.contextmanager
def own_global_state() -> Iterator[None]:
    """Context manager: on exit, restores the state of the global random generators.

    These are the generators of Python, numpy and torch, which augmentation libraries use.
    """
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])


def seed_globals(seed: int) -> None:
    """Seeds the global random generators of Python, numpy and torch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)


def ignore_interrupts(worker: int) -> None:
    """Start function of a worker process, which makes it ignore Ctrl-C.

    Ctrl-C reaches all processes, and the main process then ends the workers.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
