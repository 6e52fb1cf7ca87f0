"""This machine: the device kit as a subprocess of the running interpreter."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hwnas.core.config import StrictModel
from hwnas.core.progress import Progress
from hwnas.core.resources import resource
from hwnas.devices.kit import run_kit
from hwnas.interfaces import DeviceSpec, Transport

__all__ = ["Config", "build"]


class Config(StrictModel):
    """No settings: the device's spec has all."""

    name: Literal["local"] = "local"


def build(config: Config, device: DeviceSpec) -> Transport:
    """The transport to this machine."""
    return _Local(device)


@dataclass(frozen=True)
class _Local:
    device: DeviceSpec

    def run_bench(self, plan: Path, results: Path, *, progress: Progress) -> None:
        """See `Transport.run_bench`."""
        kit = resource("export", "bench.py")
        run_kit(
            [sys.executable, str(kit), str(plan), "--out", str(results)],
            environment={"OMP_NUM_THREADS": str(self.device.threads)},
            progress=progress,
            where=plan,
        )
