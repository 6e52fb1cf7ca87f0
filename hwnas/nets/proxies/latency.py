"""Latency of a device's table: slower networks are better."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from hwnas.core.config import StrictModel
from hwnas.core.errors import UserError
from hwnas.interfaces import CostMetric, Proxy
from hwnas.spaces.space import SearchSpace

if TYPE_CHECKING:
    import torch

__all__ = ["Config", "build"]


class Config(StrictModel):
    """Which table."""

    name: Literal["latency"] = "latency"
    device: str = Field(default="local", description="a device with a latency table")


def build(
    config: Config,
    space: SearchSpace,
    *,
    seed: int,
    metrics: Mapping[str, CostMetric],
    images: torch.Tensor | None = None,
) -> Proxy:
    """Milliseconds of archs of `space`.

    Raises:
        UserError: the device has no table.
    """
    key = f"latency_ms@{config.device}"
    if key not in metrics:
        raise UserError(
            f"no latency table of {config.device!r} to rank archs by",
            expected=f"one of {', '.join(k for k in metrics if k.startswith('latency_ms')) or '-'}",
            fix=f"add it to `devices`, or `hwnas profile {config.device}` first",
        )
    return metrics[key]
