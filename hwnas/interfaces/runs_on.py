"""What the module of a format declares: the devices that run its files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from hwnas.interfaces.records import DeviceSpec

__all__ = ["RunsOn"]


@dataclass(frozen=True)
class RunsOn:
    """Devices whose runtime runs a format, and the settings with which the format is theirs.

    providers: beginnings of their names, in any case; none: all providers. `transport`: where an
    engine is built by hwnas beside its GPU, or on the device by the kit. Of several rows of one
    format the first that fits a device counts.
    """

    runtime: str
    precision: Literal["fp32", "fp16", "int8"]
    settings: Mapping[str, Any] = field(default_factory=dict)
    providers: tuple[str, ...] = ()
    transport: Literal["any", "local", "remote"] = "any"

    def fits(self, device: DeviceSpec) -> bool:
        """Whether the device is one of them."""
        is_local = device.transport == "local"
        return (
            (self.runtime, self.precision) == (device.runtime, device.precision)
            and self.transport in ("any", "local" if is_local else "remote")
            and (
                not self.providers
                or device.provider.lower().startswith(tuple(p.lower() for p in self.providers))
            )
        )
