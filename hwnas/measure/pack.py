"""Profiles a device that hwnas cannot reach: packs the plan and the kit, imports the results."""

from __future__ import annotations

import re
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

from hwnas.core.confined import open_regular
from hwnas.core.errors import UserError
from hwnas.core.json_data import parse_json
from hwnas.core.progress import Progress, silent
from hwnas.core.store import write_bytes
from hwnas.devices.carried import CarriedRuntime
from hwnas.devices.offline import write_kit
from hwnas.interfaces import DeviceSpec
from hwnas.latency.results import MAX_RESULTS_BYTES
from hwnas.latency.sections import ProfileConfig
from hwnas.latency.table import LatencyTable
from hwnas.measure.profile import profile
from hwnas.spaces.space import SearchSpace

__all__ = ["import_results", "pack"]

OF_DEVICE = ("runtime", "provider", "precision", "threads", "batch")


class _Packed(Exception):
    """Raised when the plan is written, because nothing is run here."""


@dataclass(frozen=True)
class _Packer:
    """A Transport that zips the plan instead of running it."""

    archive: Path
    carried: CarriedRuntime | None

    def run_bench(self, plan: Path, results: Path, *, progress: Progress) -> None:
        write_kit(plan, self.archive, carried=self.carried, progress=progress)
        raise _Packed


@dataclass(frozen=True)
class _Importer:
    """A Transport with results from another machine."""

    results: Path

    def run_bench(self, plan: Path, results: Path, *, progress: Progress) -> None:
        write_bytes(results, _read_results(self.results))


def _read_results(path: Path) -> bytes:
    """A results file: the file itself, or the only .jsonl in a zip. Other names are ignored.

    Nothing is unpacked to disk, and sizes stated in the zip are not trusted.
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
                    "the zip must contain one results file",
                    expected="one .jsonl file",
                    found=f"{len(names)} .jsonl files",
                    where=path,
                    fix="give the results.jsonl of this device itself",
                )
            with archive.open(names[0]) as stream:
                return _bounded(stream, path)
    except FileNotFoundError as error:
        raise UserError(
            "no results to import",
            expected="results.jsonl as bench.py wrote it on the device",
            where=path,
            fix="copy the file from the device; bench.py writes it to the path given with `--out`",
        ) from error
    except (OSError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(
            "cannot read the results",
            expected="a .jsonl file as bench.py writes it, or a .zip that contains one",
            found=error,
            where=path,
            fix="copy the file from the device again",
        ) from error


def _bounded(stream: IO[bytes], path: Path) -> bytes:
    data = stream.read(MAX_RESULTS_BYTES + 1)
    if len(data) > MAX_RESULTS_BYTES:
        raise UserError(
            "results are too large",
            expected=f"at most {MAX_RESULTS_BYTES / 2**20:.0f} MiB",
            found="a larger file",
            where=path,
            fix="copy the file from the device again",
        )
    return data


def pack(
    space: SearchSpace,
    device: DeviceSpec,
    config: ProfileConfig,
    archive: Path,
    *,
    seed: int,
    carried: CarriedRuntime | None = None,
    progress: Progress = silent,
) -> None:
    """Writes a zip of plan, models and kit; with `carried` also Python and the runtime.

    On the device, unzip it and run `python bench.py plan.json --out r.jsonl`, or with `carried`
    `sh runtime/python3 bench.py ...`. To import the results, the same space, device, settings and
    seed are needed.
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
                transport=_Packer(archive, carried),
            )
        except _Packed:
            return
    raise AssertionError("the plan was not handed to the transport")


def import_results(
    space: SearchSpace, device: DeviceSpec, config: ProfileConfig, results: Path, *, seed: int
) -> LatencyTable:
    """The table from the results of `bench.py` on another machine, for the plan of `pack`.

    Raises:
        UserError: the results belong to another device or plan, or are incomplete or malformed.
    """
    _require_device(_read_results(results), device, results)  # before models are built
    with TemporaryDirectory() as folder:
        try:
            return profile(
                space, device, Path(folder), config, seed=seed, transport=_Importer(results)
            )
        except UserError as error:
            place = str(error.where)
            if place.startswith(folder):  # our copy; a line number stays
                line = "".join(re.findall(r":[0-9]+$", place))
                error.say_where(f"{results}{line}, imported for device {device.name}")
            raise


def _require_device(content: bytes, device: DeviceSpec, path: Path) -> None:
    """Compares the header of results with the device; other damage is reported later.

    Raises:
        UserError: the results belong to another device; names the differences.
    """
    try:
        header = parse_json(content.partition(b"\n")[0], where=path)
        found = {key: header[key] for key in OF_DEVICE if header[key] != getattr(device, key)}
    except (UserError, KeyError, TypeError):
        return
    if found:
        raise UserError(
            f"the results were not measured on device {device.name!r}",
            expected=", ".join(f"{key} {getattr(device, key)}" for key in found),
            found=", ".join(f"{key} {value!r:.40}" for key, value in found.items()),
            where=path,
            fix="give the device for which the kit was packed, by its name or its file",
        )
