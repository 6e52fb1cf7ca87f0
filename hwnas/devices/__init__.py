"""Devices: their specs, and transports that run the device kit where the device is."""

from hwnas.core.registry import Registry

REGISTRY = Registry(
    kind="transport",
    package="hwnas.devices",
    infrastructure=frozenset({"kit", "remote", "runtimes", "spec"}),
)

__all__ = ["REGISTRY"]
