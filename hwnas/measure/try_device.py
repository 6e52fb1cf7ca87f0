"""Runs one small network on a device, to check that it can be timed."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hwnas.core.errors import UserError
from hwnas.devices.kit import KitFailed
from hwnas.interfaces import DeviceSpec, TryingTransport
from hwnas.latency.plan import write_plan
from hwnas.latency.sections import ProfileConfig
from hwnas.measure.networks import network_models
from hwnas.spaces.space import SearchSpace

__all__ = ["try_device"]


def try_device(
    space: SearchSpace, device: DeviceSpec, transport: TryingTransport, *, seed: int
) -> None:
    """Runs the smallest network of a space on a device with the device kit.

    Within seconds this finds missing packages, a runtime that is too old, a missing provider, and a
    folder on the device that is full or not writable.

    Raises:
        UserError: the device does not respond, or cannot run the network.
    """
    with tempfile.TemporaryDirectory() as name:
        models = network_models(space, space.codes([space.smallest()]), device, seed=seed)
        plan = write_plan(models, device, Path(name), ProfileConfig(), seed=seed)
        try:
            transport.try_out(plan.path)
        except KitFailed as error:
            raise UserError(
                f"device {device.name!r} cannot run a small network with {device.runtime}",
                expected=f"a {device.runtime} that has the provider {device.provider} and reads"
                f" models in {device.precision}",
                found=error.found,
                where=error.where,
                fix=f"upgrade {device.runtime} on the device, or correct the file of the device",
            ) from error
