"""Deployable formats of a trained subnet, one file each; parity; the bundle that ships them."""

from hwnas.core.registry import Registry

REGISTRY = Registry(
    kind="exporter",
    package="hwnas.exporters",
    infrastructure=frozenset(
        {
            "bundle",
            "engine",
            "float_graph",
            "fold",
            "manifest",
            "opened",
            "parity",
            "quantize",
            "samples",
        }
    ),
)

__all__ = ["REGISTRY"]
