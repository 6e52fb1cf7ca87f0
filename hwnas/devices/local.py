"""Times models on this machine: runs the device kit in a subprocess with the same interpreter."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hwnas.core.config import StrictModel
from hwnas.core.progress import Progress, silent
from hwnas.core.resources import resource
from hwnas.devices.kit import run_kit
from hwnas.interfaces import DeviceSpec, Transport

__all__ = ["Config", "build"]


class Config(StrictModel):
    """No settings, because the spec of the device has all of them."""

    name: Literal["local"] = "local"


def build(config: Config, device: DeviceSpec) -> Transport:
    """The transport to this machine."""
    return _Local(device)


@dataclass(frozen=True)
class _Local:
    device: DeviceSpec

    def run_bench(self, plan: Path, results: Path, *, progress: Progress) -> None:
        """See `Transport.run_bench`."""
        self._run_kit([str(plan), "--out", str(results)], progress, where=plan)

    def try_out(self, plan: Path) -> None:
        """See `TryingTransport.try_out`."""
        self._run_kit([str(plan), "--try"], silent, where=self.device.name)

    def _run_kit(self, arguments: list[str], progress: Progress, *, where: object) -> None:
        run_kit(
            [sys.executable, str(resource("export", "bench.py")), *arguments],
            environment={"OMP_NUM_THREADS": str(self.device.threads)},
            progress=progress,
            where=where,
        )
