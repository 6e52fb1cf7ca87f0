"""Protocols of transports. A transport runs the device kit on a device."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

from hwnas.core.leftover import Leftover
from hwnas.core.progress import Progress

__all__ = [
    "CleaningTransport",
    "FetchingTransport",
    "ReachedTransport",
    "TableTransport",
    "Transport",
    "TryingTransport",
]


class Transport(Protocol):
    """Runs the device kit on the device."""

    def run_bench(self, plan: Path, results: Path, *, progress: Progress) -> None:
        """Runs `export/bench.py` on the plan.json of a plan folder; appends to `results` (jsonl).

        Resumes: timings that `results` already has are not repeated.
        """
        ...


@runtime_checkable
class ReachedTransport(Protocol):
    """A Transport to a device that may be unreachable. Other transports are not checked."""

    def check(self) -> None:
        """Checks that the device responds, before any preparation.

        Raises:
            UserError: the device does not respond.
        """
        ...


@runtime_checkable
class TryingTransport(Protocol):
    """A Transport that can try a plan before timing. Other transports fail during timing."""

    def try_out(self, plan: Path) -> None:
        """Loads and runs every model of a plan once with `export/bench.py`; stores no samples.

        Raises:
            UserError: the device lacks a package, or does not respond.
            KitFailed: a model does not run on the device.
        """
        ...


@runtime_checkable
class TableTransport(Protocol):
    """A Transport of a device on which nothing can be timed, because only its table is known."""

    @property
    def table(self) -> Path:
        """The file of the latency table; it need not exist."""
        ...


@runtime_checkable
class FetchingTransport(Protocol):
    """A Transport that needs files from the internet. Other transports need not implement it."""

    def fetch(self) -> None:
        """Downloads missing files into the cache, after logging names and sizes.

        Raises:
            UserError: the download fails; explains how to get the files by hand.
        """
        ...


@runtime_checkable
class CleaningTransport(Protocol):
    """A Transport that leaves files on the device. Other transports need not implement it."""

    def leftovers(self, home: Mapping[str, int]) -> list[Leftover]:
        """Lists what can be removed from the device.

        These are the kit of each plan, copied runtimes and tried models. `Leftover.remove` keeps
        samples that exist only on the device, and a running kit.

        home: sizes in bytes of the results files that exist here, by name without suffix.

        Raises:
            UserError: the device does not respond.
        """
        ...
