"""Search spaces: choices as data, and the one lowering from an arch to its operators."""

from hwnas.core.registry import Registry

REGISTRY = Registry(
    kind="space",
    package="hwnas.spaces",
    infrastructure=frozenset(
        {
            "arch",
            "cells",
            "chains",
            "choice",
            "cost",
            "enumeration",
            "graphs",
            "index",
            "load",
            "lowering",
            "memory",
            "network",
            "ops",
            "policy",
            "skeleton",
            "space",
        }
    ),
)

__all__ = ["REGISTRY"]
