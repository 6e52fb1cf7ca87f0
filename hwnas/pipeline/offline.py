"""Profiling a device that hwnas cannot reach: pack the plan and the kit, import the results."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from hwnas.core.errors import UserError
from hwnas.core.progress import Progress, silent
from hwnas.core.resources import resource
from hwnas.core.store import write_bytes
from hwnas.interfaces import DeviceSpec
from hwnas.latency.config import ProfileConfig
from hwnas.latency.table import LatencyTable
from hwnas.pipeline.profiling import profile
from hwnas.spaces.space import SearchSpace

__all__ = ["import_results", "pack"]

MAX_RESULTS_BYTES = 1 << 30


class _Packed(Exception):
    """The plan is written; there is nothing to run here."""


@dataclass(frozen=True)
class _Packer:
    """A Transport that zips what it should have run."""

    archive: Path

    def run_bench(self, plan: Path, results: Path, *, progress: Progress) -> None:
        members = sorted(path for path in plan.parent.rglob("*") if path.is_file())
        kit = [resource("export", name) for name in ("bench.py", "README.md")]
        temporary = self.archive.with_name(f".{self.archive.name}.tmp")
        try:
            with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
                for done, path in enumerate(members, start=1):
                    archive.write(path, path.relative_to(plan.parent).as_posix())
                    progress(done, len(members))
                for path in kit:
                    archive.write(path, path.name)
            temporary.replace(self.archive)
        finally:
            temporary.unlink(missing_ok=True)
        raise _Packed


@dataclass(frozen=True)
class _Importer:
    """A Transport whose results were made elsewhere."""

    results: Path

    def run_bench(self, plan: Path, results: Path, *, progress: Progress) -> None:
        if not self.results.is_file():
            raise UserError("no results to import", where=self.results)
        if self.results.stat().st_size > MAX_RESULTS_BYTES:
            raise UserError("results are too large", expected="at most 1 GiB", where=self.results)
        write_bytes(results, self.results.read_bytes())


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
    with TemporaryDirectory() as folder:
        return profile(space, device, Path(folder), config, seed=seed, transport=_Importer(results))
