"""Runs a model file with the runtime and provider of a device of this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hwnas.core.arrays import read_npy
from hwnas.core.confined import inside
from hwnas.core.errors import UserError
from hwnas.core.json_data import strict_json
from hwnas.core.records import dump
from hwnas.core.resources import resource
from hwnas.exporters.manifest import Manifest
from hwnas.exporters.opened import CannotRunHere
from hwnas.interfaces import DeviceSpec, Images

__all__ = ["DeviceRun", "held_precisions", "run_on_device", "wrong_precisions"]

PRECISIONS = (None, "fp32", "fp16", "int8")
UNREADABLE = "unreadable"  # as in export/bundle_precision.py


@dataclass(frozen=True)
class DeviceRun:
    """Output of a model file on a device.

    logits: [n, classes].
    precision: that of the file; None if unknown.
    """

    logits: Images
    precision: str | None


def run_on_device(device: DeviceSpec, model: Path, images: Images) -> DeviceRun:
    """Runs a model on images [n, C, H, W] with the device kit, at the batch size of the device.

    Raises:
        CannotRunHere: the device is not this machine.
        UserError: the runtime of the device fails.
    """
    if device.transport != "local":
        raise CannotRunHere(f"the device {device.name!r} is reached over {device.transport}")
    with tempfile.TemporaryDirectory() as temporary:
        given, found = (str(Path(temporary, name)) for name in ("x.npy", "y.npy"))
        np.save(given, images, allow_pickle=False)
        kit = resource("export", "device_run.py")
        spec = json.dumps(dump(device, versioned=False))
        done = subprocess.run(
            [sys.executable, str(kit), "--logits", spec, str(model), given, found],
            env={**os.environ, "OMP_NUM_THREADS": str(device.threads)},
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            raise UserError(
                f"the model does not run on the device {device.name!r}",
                found=" | ".join((done.stdout + done.stderr).strip().splitlines()[-3:]),
                where=model,
            )
        return _read(Path(found), done.stdout, len(images), device, model)


def _read(found: Path, said: str, n: int, device: DeviceSpec, model: Path) -> DeviceRun:
    """Reads and checks the untrusted output of the kit for n images.

    Raises:
        UserError: the output is not float32 logits of n images, or lacks the precision.
    """
    try:
        logits, last = read_npy(found), strict_json(said.splitlines()[-1])
        is_logits = logits.dtype == np.float32 and logits.ndim == 2 and len(logits) == n
        if not is_logits or last.get("precision") not in PRECISIONS:
            raise ValueError(f"{logits.dtype} {list(logits.shape)}, {last!r:.80}")
    except (OSError, ValueError, IndexError, AttributeError, RecursionError) as error:
        raise UserError(
            f"the output of the device kit on {device.name!r} is not valid",
            expected=f"float32 logits [{n}, classes], and the precision of the file",
            found=str(error),
            where=model,
        ) from error
    return DeviceRun(logits, last["precision"])


def held_precisions(models: Sequence[Path]) -> list[str | None]:
    """The precision of every file, as read by the kit; None if unknown.

    An unreadable file has the precision `UNREADABLE`.
    """
    kit = resource("export", "bundle_precision.py")
    done = subprocess.run(
        [sys.executable, str(kit), *map(str, models)], capture_output=True, text=True, check=True
    )
    found: list[str | None] = strict_json(done.stdout)
    return found


def wrong_precisions(folder: Path, manifest: Manifest, rows: Sequence[dict[str, Any]]) -> list[str]:
    """Describes every model of a bundle whose precision differs from the manifest.

    Sets `passed` to False in its row. `rows` has one row per model of the manifest. An unreadable
    file is left out if another check of its row has already failed.
    """
    held = held_precisions([inside(folder, model.path) for model in manifest.models])
    problems = []
    for model, found, row in zip(manifest.models, held, rows, strict=True):
        is_refused = found == UNREADABLE and row["passed"] is False
        if found not in (None, model.precision) and not is_refused:
            row["passed"] = False
            problems.append(
                f"{model.path}: the file holds {found}, but its manifest says {model.precision}"
            )
    return problems
