"""The speed of a machine in training and running networks: measured, or guessed without torch."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["Speed", "busyness", "guessed_speed", "slowness"]

Values = float | NDArray[np.float64]

SAMPLED_S = 0.05  # processor time of the measurement
N_VALUES = 1 << 20
N_TIMED = 5
N_STEPS, STEPS_S = 20_000, 7e-4
"""Number of steps of a Python loop, and the seconds that the loop takes on the reference machine.

That is the machine on which the time constants of hwnas were fitted.
"""

TRAIN_OP, INFER_OP = 3.7, 0.65
"""Fixed time per operator of a training pass and of a forward pass.

The unit is the time that numpy takes to multiply two arrays of `N_VALUES` numbers. Measured on a
Xeon.
"""

TRAIN_MAC, INFER_MAC = 8e-7, 2.6e-7
"""Time per MAC of these passes, in the same unit.

Depthwise networks reach a tenth of the processor's peak.
"""


@dataclass(frozen=True)
class Speed:
    """Time of training passes (forward and backward) and of inference passes (forward).

    A pass takes `fixed + per_mac * MACs * images` seconds. Each field is a pair (fixed, per_mac).
    """

    training: tuple[float, float]
    inference: tuple[float, float]

    def train(self, macs: Values, n_images: float, n_passes: float = 1.0) -> float:
        """Seconds of `n_passes` training passes of networks with these MACs, each on n images."""
        return _seconds(self.training, macs, n_images, n_passes)

    def infer(self, macs: Values, n_images: float, batch: int = 128) -> float:
        """Seconds to run networks with these MACs on n images, in batches."""
        n_passes = max(1.0, n_images / batch)
        return _seconds(self.inference, macs, n_images / n_passes, n_passes)


def _seconds(kind: tuple[float, float], macs: Values, n_images: float, n_passes: float) -> float:
    fixed, per_mac = kind
    return float(np.sum(fixed + per_mac * np.asarray(macs) * n_images)) * n_passes


def guessed_speed(n_ops: int) -> Speed:
    """Guesses the speed of one thread for networks of about n operators, without running a network.

    The fastest of some products of numpy arrays gives the speed of this machine when it is idle,
    and `busyness` gives its current load.
    """
    values, times = np.ones(N_VALUES, dtype=np.float32), []
    product = np.empty_like(values)
    for _ in range(N_TIMED):
        begin = time.perf_counter()
        np.multiply(values, values, out=product)
        times.append(time.perf_counter() - begin)
    unit = min(times) * busyness()
    return Speed(
        (n_ops * TRAIN_OP * unit, TRAIN_MAC * unit), (n_ops * INFER_OP * unit, INFER_MAC * unit)
    )


@cache
def busyness() -> float:
    """Elapsed time / processor time of one busy thread: 1 on an idle machine, else more.

    It is measured once in a process, so that all estimates agree.
    """
    values = np.ones(N_VALUES, dtype=np.float32)
    begin, cpu_begin = time.perf_counter(), time.process_time()
    while (used := time.process_time() - cpu_begin) < SAMPLED_S:
        np.multiply(values, values, out=values)
    return max(1.0, (time.perf_counter() - begin) / used)


@cache
def slowness() -> float:
    """The factor by which this machine is slower than the reference machine of `STEPS_S`.

    It is measured once in a process: `busyness`, times the median processor time of a loop in
    Python relative to `STEPS_S`. A processor with half the speed has twice the slowness when idle.
    The loop runs for `SAMPLED_S`, because other programs on the core slow it down for a while.
    """
    times: list[float] = []
    while sum(times) < SAMPLED_S:
        times.append(_steps())
    return busyness() * float(np.median(times)) / STEPS_S


def _steps() -> float:
    """Processor time of a loop in Python."""
    total, begin = 0, time.process_time()
    for step in range(N_STEPS):
        total += step
    return time.process_time() - begin
