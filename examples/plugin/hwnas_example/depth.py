"""Number of operators; deeper networks score higher."""

from __future__ import annotations

from typing import Literal

import numpy as np

from hwnas.core.config import StrictModel
from hwnas.interfaces import Proxy, ProxyContext
from hwnas.spaces.index import op_index

__all__ = ["Config", "build"]


class Config(StrictModel):
    """No settings."""

    name: Literal["depth"] = "depth"


def build(config: Config, context: ProxyContext) -> Proxy:
    """A proxy that returns the number of operators; an index of -1 means none."""
    return lambda codes: (op_index(context.space, codes) >= 0).sum(axis=1).astype(np.float64)
