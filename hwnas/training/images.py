"""From pixels to network input: the one resize and the one normalisation."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from hwnas.nets.images import resize

__all__ = ["normalise", "resize"]


def normalise(x: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """(x - mean) / std per channel; `x`: [B, C, H, W] in [0, 1]."""
    return (x - x.new_tensor(mean)[:, None, None]) / x.new_tensor(std)[:, None, None]
