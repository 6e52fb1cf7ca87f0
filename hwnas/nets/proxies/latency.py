"""Latency from the table of a device; slower networks score higher."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hwnas.core.config import StrictModel
from hwnas.core.errors import UserError
from hwnas.core.metrics import MetricKey
from hwnas.interfaces import Proxy, ProxyContext

__all__ = ["Config", "build"]


class Config(StrictModel):
    """Settings."""

    name: Literal["latency"] = "latency"
    device: str = Field(default="local", description="Device whose latency table ranks the archs.")


def build(config: Config, context: ProxyContext) -> Proxy:
    """A proxy that returns the latency of archs in ms.

    Raises:
        UserError: the device has no table.
    """
    key = MetricKey("latency_ms", config.device)
    if key not in context.metrics:
        keys = map(MetricKey.parse, context.metrics)
        known = [f"{key.device}" for key in keys if key.metric == "latency_ms"]
        raise UserError(
            f"the device {config.device!r} has no latency table to rank archs by",
            expected=f"one of {', '.join(known)}" if known else "a device with a table",
            fix="add it to `devices`, and profile it first",
        )
    return context.metrics[key]
