"""Search spaces: choices as data, and the one lowering from an arch to its operators."""

from hwnas.core.registry import Registry

REGISTRY = Registry(
    kind="space",
    package="hwnas.spaces",
    infrastructure=frozenset(
        {
            "arch",
            "cost",
            "enumeration",
            "graphs",
            "index",
            "load",
            "lowering",
            "macro",
            "ops",
            "policy",
            "space",
        }
    ),
)

__all__ = ["REGISTRY"]
