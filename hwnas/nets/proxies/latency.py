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
    """The table."""

    name: Literal["latency"] = "latency"
    device: str = Field(default="local", description="A device with a latency table.")


def build(config: Config, context: ProxyContext) -> Proxy:
    """A proxy that returns the latency of archs in ms.

    Raises:
        UserError: the device has no table.
    """
    key = MetricKey("latency_ms", config.device)
    if key not in context.metrics:
        known = [name for name in context.metrics if MetricKey.parse(name).metric == "latency_ms"]
        raise UserError(
            f"no latency table of {config.device!r} to rank archs by",
            expected=f"one of {', '.join(known) or '-'}",
            fix="add it to `devices`, and profile it first",
        )
    return context.metrics[key]
