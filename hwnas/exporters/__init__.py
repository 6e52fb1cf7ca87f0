"""Deployable formats of a trained subnet, one file each; parity; the bundle that ships them."""

from hwnas.core.registry import Registry

REGISTRY = Registry(
    kind="exporter",
    package="hwnas.exporters",
    infrastructure=frozenset(
        {
            "base",
            "bundle",
            "engine",
            "float_graph",
            "fold",
            "formats",
            "manifest",
            "opened",
            "parity",
            "quantize",
            "samples",
        }
    ),
)

__all__ = ["REGISTRY"]
