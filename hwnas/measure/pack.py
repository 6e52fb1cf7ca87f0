"""Profiling a device that hwnas cannot reach: pack the plan and the kit, import the results."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

from hwnas.core.confined import open_regular
from hwnas.core.errors import UserError
from hwnas.core.progress import Progress, silent
from hwnas.core.store import write_bytes
from hwnas.devices.offline import write_kit
from hwnas.interfaces import DeviceSpec
from hwnas.latency.results import MAX_RESULTS_BYTES
from hwnas.latency.sections import ProfileConfig
from hwnas.latency.table import LatencyTable
from hwnas.measure.profile import profile
from hwnas.spaces.space import SearchSpace

__all__ = ["import_results", "pack"]


class _Packed(Exception):
    """Raised once the plan is written: nothing is run here."""


@dataclass(frozen=True)
class _Packer:
    """A Transport that zips the plan in place of running it."""

    archive: Path

    def run_bench(self, plan: Path, results: Path, *, progress: Progress) -> None:
        write_kit(plan, self.archive, progress=progress)
        raise _Packed


@dataclass(frozen=True)
class _Importer:
    """A Transport whose results were made elsewhere."""

    results: Path

    def run_bench(self, plan: Path, results: Path, *, progress: Progress) -> None:
        write_bytes(results, _read_results(self.results))


def _read_results(path: Path) -> bytes:
    """A results file, by itself or as the only .jsonl in a zip, whose other names are ignored.

    Nothing is unpacked: a zip's names lead nowhere, and its sizes are believed only once counted.
    """
    try:
        with open_regular(path) as stream:
            if not zipfile.is_zipfile(stream):
                stream.seek(0)
                return _bounded(stream, path)
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith(".jsonl")]
            if len(names) != 1:
                raise UserError(
                    "expected one results file in the zip",
                    found=f"{len(names)} .jsonl files",
                    where=path,
                )
            with archive.open(names[0]) as stream:
                return _bounded(stream, path)
    except FileNotFoundError as error:
        raise UserError("no results to import", where=path) from error
    except (OSError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError("cannot read the results", found=error, where=path) from error


def _bounded(stream: IO[bytes], path: Path) -> bytes:
    data = stream.read(MAX_RESULTS_BYTES + 1)
    if len(data) > MAX_RESULTS_BYTES:
        raise UserError(
            "results are too large", expected=f"at most {MAX_RESULTS_BYTES} bytes", where=path
        )
    return data


def pack(
    space: SearchSpace,
    device: DeviceSpec,
    config: ProfileConfig,
    archive: Path,
    *,
    seed: int,
    progress: Progress = silent,
) -> None:
    """Write a zip of plan, models and kit. There: unzip, `python bench.py plan.json --out r.jsonl`.

    The same space, device, settings and seed are needed to import the results.
    """
    with TemporaryDirectory() as folder:
        try:
            profile(
                space,
                device,
                Path(folder),
                config,
                seed=seed,
                progress=progress,
                transport=_Packer(archive),
            )
        except _Packed:
            return
    raise AssertionError("the plan was not handed to the transport")


def import_results(
    space: SearchSpace, device: DeviceSpec, config: ProfileConfig, results: Path, *, seed: int
) -> LatencyTable:
    """The table of results that `bench.py` wrote elsewhere for the plan of `pack`.

    Raises:
        UserError: the results are of another plan, incomplete or malformed.
    """
    _read_results(results)  # what cannot be read is an error before models are made
    with TemporaryDirectory() as folder:
        return profile(space, device, Path(folder), config, seed=seed, transport=_Importer(results))
