"""Dropout and drop path."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hwnas.core.errors import UserError

__all__ = ["Drops", "drop"]


@dataclass(frozen=True)
class Drops:
    """Rates of dropout and drop path in [0, 1), and the generator that draws what is dropped.

    Raises:
        UserError: a rate is out of range, or is above 0 without a generator.
    """

    rng: torch.Generator | None = None
    dropout: float = 0.0
    drop_path: float = 0.0

    def __post_init__(self) -> None:
        rates = self.dropout, self.drop_path
        if not all(0 <= rate < 1 for rate in rates):
            found = f"dropout {self.dropout}, drop_path {self.drop_path}"
            raise UserError("a rate is out of range", expected="rates in [0, 1)", found=found)
        if any(rates) and self.rng is None:
            raise UserError(
                "dropout and drop_path need a random generator",
                expected="rng=torch.Generator()",
                found="rng=None",
            )


def drop(x: Tensor, rate: float, rng: torch.Generator | None, *, per_image: bool = False) -> Tensor:
    """Zeroes values, or whole images, with probability `rate`; divides the others by 1 - rate."""
    if not rate or rng is None:
        return x
    shape = (x.shape[0], *[1] * (x.ndim - 1)) if per_image else x.shape
    kept = torch.rand(shape, generator=rng, device=rng.device) >= rate
    return x * (kept.to(x.device, x.dtype) / (1 - rate))
