"""Dropout and drop path."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["drop"]


def drop(x: Tensor, rate: float, rng: torch.Generator | None, *, per_image: bool = False) -> Tensor:
    """Zeroes values (or whole images) at probability `rate`; scales the rest by 1 / (1 - rate)."""
    if not rate or rng is None:
        return x
    shape = (x.shape[0], *[1] * (x.ndim - 1)) if per_image else x.shape
    kept = torch.rand(shape, generator=rng, device=rng.device) >= rate
    return x * (kept.to(x.device, x.dtype) / (1 - rate))
