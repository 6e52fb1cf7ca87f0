"""A device of which only the latency table is known, such as a published one: nothing is timed."""

from __future__ import annotations

from dataclasses import dataclass
from os.path import normpath
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from hwnas.core.config import BESIDE, StrictModel
from hwnas.core.progress import Progress
from hwnas.interfaces import DeviceSpec, Transport
from hwnas.latency.shipped import shipped_table

__all__ = ["Config", "build"]


class Config(StrictModel):
    """The table of the device."""

    name: Literal["table"] = "table"
    table: Annotated[str, BESIDE] = Field(
        min_length=1,
        description="Latency table: a .json file, relative to the file of the device, or the name"
        " of a shipped table.",
    )


def build(config: Config, device: DeviceSpec) -> Transport:
    """The transport of a device that has a table only."""
    given = Path(normpath(config.table))
    return _Table(device.name, shipped_table(given.name) or given)


@dataclass(frozen=True)
class _Table:
    device: str
    table: Path

    def run_bench(self, plan: Path, results: Path, *, progress: Progress) -> None:
        """Not called: stages leave such devices out, other verbs use `spec.timing_transport`."""
        raise NotImplementedError(f"nothing can be timed on {self.device}")
