"""Measures how fast this machine trains and runs networks of a space, within about a second."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np
import torch

from hwnas.core.rng import stable_seed
from hwnas.core.speed import Speed, busyness
from hwnas.interfaces import FloatArray
from hwnas.nets.supernet import Supernet
from hwnas.spaces.arch import Arch
from hwnas.spaces.cost import cost
from hwnas.spaces.graphs import smallest_connected
from hwnas.spaces.lowering import resolution
from hwnas.training.precision import place, wait_for

__all__ = ["measure_speed"]

MOST_MACS = 4e9  # per timed pass; more would take seconds on a CPU
MOST_IMAGES = 32
N_TIMED = 2


def measure_speed(
    supernet: Supernet, device: torch.device, window: tuple[int, int] = (1, 1)
) -> Speed:
    """Times passes of the smallest and of the largest arch on synthetic images or texts.

    The supernet is moved to `device`, and its gradients are cleared.

    window: for networks of texts, (S, L): S segments of L tokens count as one image.
    """
    space = supernet.space
    ends = [smallest_connected(space), space.largest()]
    macs = cost(space, space.codes(ends), "macs").astype(np.float64)
    place(supernet, device)
    n_tokens = math.prod(window) if space.macro.reads_tokens else 1
    sizes, busy = _images(macs * n_tokens), busyness()
    rows = [
        _passes(supernet, arch, _batch(supernet, arch, n, window), device, busy)
        for arch, n in zip(ends, sizes, strict=True)
    ]
    supernet.zero_grad(set_to_none=True)
    work = macs * sizes
    return Speed(*(_line(work, [row[kind] for row in rows]) for kind in (0, 1)))


def _images(macs: FloatArray) -> list[int]:
    return [int(np.clip(MOST_MACS / one, 2, MOST_IMAGES)) for one in macs]


def _line(work: FloatArray, seconds: list[float]) -> tuple[float, float]:
    """Fixed seconds, and seconds per unit of work, through two points; both at least 0.

    Points with about equal work, such as cells that only differ in activations, give no slope.
    """
    low, high = seconds
    more = float(work[1] - work[0])
    slope = (high - low) / more if more > 0.1 * float(work[1]) else 0.0
    per_mac = slope if slope > 0 else high / float(work[1])
    return max(0.0, low - per_mac * float(work[0])), per_mac


def _batch(
    supernet: Supernet, arch: Arch, n: int, window: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Images [n, C, px, px] and classes [n], or tokens [n, S, L] and next tokens [n, L]."""
    macro = supernet.space.macro
    if macro.reads_tokens:
        return torch.zeros((n, *window), dtype=torch.long), torch.zeros(
            (n, window[1]), dtype=torch.long
        )
    px = resolution(supernet.space, arch)
    generator = torch.Generator().manual_seed(stable_seed(0, "speed"))
    x = torch.randn((n, macro.in_channels, px, px), generator=generator)
    return x.contiguous(memory_format=torch.channels_last), torch.zeros(n, dtype=torch.long)


def _passes(
    supernet: Supernet,
    arch: Arch,
    batch: tuple[torch.Tensor, torch.Tensor],
    device: torch.device,
    busy: float,
) -> tuple[float, float]:
    """Seconds of a training pass and of a forward pass."""
    x, y = (one.to(device) for one in batch)

    def train() -> None:
        loss = torch.nn.functional.cross_entropy(supernet(x, arch), y)
        loss.backward()  # type: ignore[no-untyped-call]

    def infer() -> None:
        with torch.no_grad():
            supernet(x, arch)

    return _seconds(train, device, busy), _seconds(infer, device, busy)


def _seconds(work: Callable[[], None], device: torch.device, busy: float) -> float:
    """Seconds of the fastest of a few calls; the call before them is a warm-up.

    On a busy processor, a short call may run undisturbed, but a long training will not. So the
    result is at least the processor time per thread, times `busy`.
    """
    work()
    times, used = [], []
    for _ in range(N_TIMED):
        wait_for(device)
        begin, cpu_begin = time.perf_counter(), time.process_time()
        work()
        wait_for(device)
        times.append(time.perf_counter() - begin)
        used.append(time.process_time() - cpu_begin)
    return max(min(times), min(used) / torch.get_num_threads() * busy)
