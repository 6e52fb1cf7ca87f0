"""Devices: their specs, and transports that run the device kit where the device is."""

from hwnas.core.registry import Registry
from hwnas.interfaces import TransportModule

REGISTRY = Registry[TransportModule](
    kind="transport",
    package="hwnas.devices",
    infrastructure=frozenset({"kit", "remote", "runtimes", "spec"}),
    contract=TransportModule,
)

__all__ = ["REGISTRY"]
