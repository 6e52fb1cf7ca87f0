"""Processes that prepare images: their global generators and signals."""

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
    """Restores the global generators, from which augmentation libraries draw."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])


def seed_globals(seed: int) -> None:
    """Seeds the global generators."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)


def ignore_interrupts(worker: int) -> None:
    """Workers ignore Ctrl-C, which reaches all processes; the main process ends them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
