"""Devices: their specs, and the transports that run the device kit on them."""

from hwnas.core.registry import Registry
from hwnas.interfaces import TransportModule

REGISTRY = Registry[TransportModule](
    kind="transport",
    package="hwnas.devices",
    infrastructure=frozenset({"kit", "reach", "remote", "remote_kits", "runtimes", "spec"}),
    contract=TransportModule,
)

__all__ = ["REGISTRY"]
