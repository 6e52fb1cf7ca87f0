"""Multiply-accumulates: larger networks are better."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import numpy as np

from hwnas.core.config import StrictModel
from hwnas.interfaces import CostMetric, Proxy
from hwnas.spaces.cost import cost
from hwnas.spaces.space import SearchSpace

if TYPE_CHECKING:
    import torch

__all__ = ["Config", "build"]


class Config(StrictModel):
    """No settings."""

    name: Literal["macs"] = "macs"


def build(
    config: Config,
    space: SearchSpace,
    *,
    seed: int,
    metrics: Mapping[str, CostMetric],
    images: torch.Tensor | None = None,
) -> Proxy:
    """MACs of archs of `space`."""
    return lambda codes: cost(space, codes, "macs").astype(np.float64)
