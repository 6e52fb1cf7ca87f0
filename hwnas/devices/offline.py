"""A device that hwnas cannot reach: the user copies a zip to it and a results file back."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hwnas.core.beside import replacing
from hwnas.core.config import StrictModel
from hwnas.core.errors import UserError
from hwnas.core.progress import Progress, silent
from hwnas.core.store import explained, read_json
from hwnas.devices.carried import FOLDER, CarriedRuntime
from hwnas.devices.kit import kit_files
from hwnas.interfaces import DeviceSpec, Transport

__all__ = ["Config", "build", "write_kit"]


class Config(StrictModel):
    """No settings, because the user copies the files."""

    name: Literal["offline"] = "offline"


def build(config: Config, device: DeviceSpec) -> Transport:
    """The transport that asks the user to copy files."""
    return _Offline()


@dataclass(frozen=True)
class _Offline:
    def run_bench(self, plan: Path, results: Path, *, progress: Progress) -> None:
        """Returns if the results exist. Otherwise it writes a kit next to the plan and raises.

        Raises:
            UserError: there are no results yet.
        """
        if results.is_file():
            return
        archive = plan.with_name(f"{results.stem}-kit.zip")
        write_kit(plan, archive, progress=progress)
        raise UserError(
            "this device must be profiled by hand",
            expected=f"results at {results}",
            found=f"none yet; the kit is written to {archive}",
            fix="unzip the kit on the device, run `python3 bench.py plan.json --out results.jsonl`,"
            " copy results.jsonl to the expected path, and repeat this command",
        )


def write_kit(
    plan: Path,
    archive: Path,
    *,
    carried: CarriedRuntime | None = None,
    progress: Progress = silent,
) -> None:
    """Zips a plan with its models and the kit; with `carried` also Python and the runtime."""
    names = [plan.name, *(str(item["file"]) for item in read_json(plan)["items"])]
    members = [(plan.parent / name, name) for name in names]
    members += [(path, path.name) for path in kit_files()]
    with explained("write the kit", archive):
        archive.parent.mkdir(parents=True, exist_ok=True)
        with (
            replacing(archive) as target,
            # A zip has no times before 1980, which files of some package managers have.
            zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as stream,
        ):
            for done, (path, name) in enumerate(members, start=1):
                stream.write(path, name)
                progress(done, len(members), "packing")
            for name, content, is_executable in () if carried is None else carried.members():
                info = zipfile.ZipInfo(f"{FOLDER}/{name}")
                info.external_attr = (0o100755 if is_executable else 0o100644) << 16
                info.compress_type = zipfile.ZIP_DEFLATED
                stream.writestr(info, content)
