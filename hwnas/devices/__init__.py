"""Devices: their specs, and the transports that run the device kit on them."""

from hwnas.core.registry import Registry
from hwnas.interfaces import TransportModule

REGISTRY = Registry[TransportModule](
    kind="transport",
    package="hwnas.devices",
    infrastructure=frozenset(
        {
            *("adb_phone", "benchmark_model", "benchmark_output"),
            *("carried", "carried_fetch", "carried_parts"),
            *("kit", "reach", "remote", "remote_files", "remote_kits", "remote_samples"),
            *("runtimes", "spec"),
        }
    ),
    contract=TransportModule,
)

__all__ = ["REGISTRY"]
