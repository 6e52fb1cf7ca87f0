"""From pixels to network input: the one resize and the one normalisation."""

from __future__ import annotations

from collections.abc import Sequence

import torch

__all__ = ["normalise", "resize"]


def resize(x: torch.Tensor, px: int) -> torch.Tensor:
    """Square images [B, C, H, H] to [B, C, px, px], bilinear with antialiasing.

    Pixels of that size already are not touched. The result is channels_last, without which
    depthwise convolutions train several times slower on CPUs.
    """
    if x.shape[-2:] != (px, px):
        x = torch.nn.functional.interpolate(
            x, size=(px, px), mode="bilinear", align_corners=False, antialias=True
        )
    return x.contiguous(memory_format=torch.channels_last)


def normalise(x: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """(x - mean) / std per channel; `x`: [B, C, H, W] in [0, 1]."""
    return (x - x.new_tensor(mean)[:, None, None]) / x.new_tensor(std)[:, None, None]
