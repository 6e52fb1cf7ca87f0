"""Groups of devices that one network serves as well as each device's own winner."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hwnas.controller.result import Candidate
from hwnas.core.errors import UserError

__all__ = ["DeviceGroup", "device_groups"]

Limits = Mapping[str, float]
"""Maps each limited metric key to the maximum cost."""


@dataclass(frozen=True)
class DeviceGroup:
    """Devices that can use one network: the winner of the first of them, whose key is `arch`."""

    devices: tuple[str, ...]
    arch: str

    def __str__(self) -> str:
        return f"the winner of {self.devices[0]} serves {', '.join(self.devices)}"

    def summary(self) -> dict[str, Any]:
        """JSON values."""
        return {"devices": list(self.devices), "arch": self.arch}


def device_groups(
    winners: Mapping[str, Candidate], limits: Mapping[str, Limits], *, tolerance: float = 0.0
) -> tuple[DeviceGroup, ...]:
    """Divides devices into few groups, each with one winner that serves all of its devices.

    A network serves a device if it meets the limits of the device, and its score is not below that
    of the device's own winner by more than noise and `tolerance`. The winner that serves most
    devices comes first, then the one that serves most of the others, and so on. Among equals, the
    one with the higher score is used. Every device is in one group.

    winners: maps a device to its winner, which has its costs on all devices.
    limits: maps a device to its limits.

    Raises:
        UserError: the tolerance is negative or NaN.
    """
    if not tolerance >= 0:
        raise UserError(
            "not a tolerance of scores",
            expected="a number that is at least 0",
            found=tolerance,
            where="tolerance",
        )
    left, groups = dict(winners), []
    while left:
        served = {
            device: [
                other
                for other, own in left.items()
                if own.arch == one.arch or _serves(one, own, limits[other], tolerance)
            ]
            for device, one in winners.items()
        }
        best = max(served, key=lambda device: (len(served[device]), winners[device].score))
        devices = sorted(served[best], key=lambda device: device != best)
        groups.append(DeviceGroup(tuple(devices), winners[best].arch.key))
        left = {device: own for device, own in left.items() if device not in devices}
    return tuple(groups)


def _serves(one: Candidate, own: Candidate, limits: Limits, tolerance: float) -> bool:
    """Noise is one standard error of the difference of two predictions; evaluations have none."""
    is_within = all(one.costs.get(key, math.inf) <= limits[key] for key in limits)
    return is_within and one.score >= own.score - math.hypot(_error(one), _error(own)) - tolerance


def _error(candidate: Candidate) -> float:
    return candidate.predicted_std if candidate.supernet is None else 0.0
