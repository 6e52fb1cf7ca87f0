"""Parameters; larger networks score higher."""

from __future__ import annotations

from typing import Literal

from hwnas.core.config import StrictModel
from hwnas.interfaces import Proxy, ProxyContext
from hwnas.nets.proxies._costs import cost_proxy

__all__ = ["Config", "build"]


class Config(StrictModel):
    """No settings."""

    name: Literal["params"] = "params"


def build(config: Config, context: ProxyContext) -> Proxy:
    """A proxy that returns the number of parameters of archs."""
    return cost_proxy(context.space, "params")
