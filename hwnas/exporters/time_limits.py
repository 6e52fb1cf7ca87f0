"""Time limits for the other process of `apart.Runner`.

They are generous, so that only a converter or a runtime that hangs exceeds them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from hwnas.exporters.parity import torch_logits

if TYPE_CHECKING:
    import torch

__all__ = ["export_limit_s", "run_limit_s"]

LEAST_S = 1800.0
"""Constant part of every limit, in seconds.

It is 30 times what the slowest format takes for the winner of quickstart.
"""
N_PASSES = 100_000
"""The limit of a conversion has time for this many further passes of the network.

A pass is timed in torch, on one image and one thread. 8-bit formats run the network with every
layer alone in 8 bits, on 64 images, and some combinations on all images: 15,000 passes for 100
layers, each several times as slow as in torch.
"""
IMAGE_S = 60.0
"""Further seconds in the limit of a call of a runtime, for each image and repetition."""


def export_limit_s(network: torch.nn.Module, input_shape: Sequence[int]) -> float:
    """Seconds after which the conversion of a network counts as hanging."""
    import torch

    dtype = np.int64 if getattr(network, "reads_tokens", False) else np.float32
    example, times = np.zeros((1, *input_shape), dtype=dtype), list[float]()
    for _ in range(2):  # the first pass can be slower
        start = time.perf_counter()
        torch_logits(network, example)
        times.append(time.perf_counter() - start)
    return LEAST_S + N_PASSES * min(times) * torch.get_num_threads()


def run_limit_s(n_images: int = 0) -> float:
    """Seconds after which a runtime that runs n images one by one counts as hanging."""
    return LEAST_S + IMAGE_S * n_images
