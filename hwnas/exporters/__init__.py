"""Deployable formats of a trained subnet, one file each; parity; the bundle that ships them."""

from hwnas.core.registry import Registry

REGISTRY = Registry(
    kind="exporter",
    package="hwnas.exporters",
    infrastructure=frozenset({"bundle", "fold", "manifest", "parity"}),
)

__all__ = ["REGISTRY"]
