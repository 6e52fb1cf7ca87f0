"""Search spaces: choices as data, and the one lowering from an arch to its operators."""

from hwnas.core.registry import Registry

REGISTRY = Registry(
    kind="space",
    package="hwnas.spaces",
    infrastructure=frozenset(
        {"arch", "cost", "graphs", "index", "lowering", "macro", "ops", "space"}
    ),
)

__all__ = ["REGISTRY"]
