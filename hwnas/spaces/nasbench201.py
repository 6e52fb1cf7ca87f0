"""NAS-Bench-201: an alias of `nats_topology`, with the same archs, keys and id."""

from __future__ import annotations

from typing import Literal

from hwnas.spaces.nats_topology import QUICK, Cells, build

__all__ = ["QUICK", "Config", "build"]


class Config(Cells):
    """Parameters of the space."""

    name: Literal["nasbench201"] = "nasbench201"
