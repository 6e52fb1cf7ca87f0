"""This machine at a lower priority (`nice`), to not disturb other processes."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from hwnas.core.config import StrictModel
from hwnas.core.progress import Progress
from hwnas.core.resources import resource
from hwnas.devices.kit import run_kit
from hwnas.interfaces import DeviceSpec, Transport

__all__ = ["Config", "build"]


class Config(StrictModel):
    """The priority of the kit."""

    name: Literal["niced"] = "niced"
    level: int = Field(10, ge=0, le=19, description="Added to the niceness of the kit.")


def build(config: Config, device: DeviceSpec) -> Transport:
    """The transport to this machine."""
    return _Niced(config, device)


@dataclass(frozen=True)
class _Niced:
    config: Config
    device: DeviceSpec

    def run_bench(self, plan: Path, results: Path, *, progress: Progress) -> None:
        """See `Transport.run_bench`."""
        kit = [sys.executable, str(resource("export", "bench.py")), str(plan)]
        run_kit(
            ["nice", "-n", str(self.config.level), *kit, "--out", str(results)],
            environment={"OMP_NUM_THREADS": str(self.device.threads)},
            progress=progress,
            where=plan,
        )
