"""`hwnas data ...`: reports on photos."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hwnas.api.result import Folder, Listing, Settings
from hwnas.core.errors import UserError
from hwnas.core.records import dump
from hwnas.core.rundir import RunDir
from hwnas.interfaces import DatasetContext
from hwnas.pipeline.config import load_config
from hwnas.pipeline.stored import config_data, stored_config
from hwnas.training.datasets import REGISTRY
from hwnas.training.photo_report import PhotoReport, ReportedDataset

__all__ = ["data_show"]

PRESET = "photos"
ARCHIVE = "train.npz"


def data_show(folder: Folder, *, config: str | None = None, settings: Settings = None) -> Listing:
    """Shows photos per class and split, of a folder or archives: found, used, left out and why.

    The fact `doubts` lists possible problems: files left out, classes that a split lacks,
    unbalanced classes, photos of one colour, photos in two classes, and photos in two splits (also
    if scaled or recompressed). The fact `refused` lists problems that training rejects. The call
    writes only the cache of decoded images.

    Args:
        folder: contains class folders, or train/ val/ test/, or archives; or a run folder.
        config: configuration with the sizes, splits and seed; default: `photos`.
        settings: changes, e.g. `{"data.val_fraction": 0.3}`.

    Raises:
        UserError: there are no class folders, classes without images, or damaged archives.
    """
    found = _report(Path(folder), config, settings)
    rows = [
        {
            "split": count.split,
            "class": count.name,
            "found": count.found,
            "used": count.used,
            "left_out": dict(count.left_out),
        }
        for count in found.counts
    ]
    return Listing(
        rows,
        title=str(found.folder),
        facts={
            "folder": str(found.folder),
            "doubts": [*found.doubts],
            "refused": [*found.refused],
            "shared": [dump(one, versioned=False) for one in found.shared],
        },
        shown=_by_class(rows),
    )


def _report(folder: Path, config: str | None, settings: Settings) -> PhotoReport:
    run = RunDir(folder)
    is_run = (
        config is None
        and os.path.isdir(folder)
        and os.access(folder, os.X_OK)
        and os.path.isfile(stored_config(run))
    )
    data, where = config_data(run, None if is_run else config or PRESET, settings)
    if config is None and not is_run and os.path.isfile(folder / ARCHIVE):
        data = data | {"data": {"name": "npz_jpeg"}}
    built = load_config(data, settings, where=where)
    section, module = built.data, REGISTRY.load(built.data.name)
    has_root = "root" in type(section).model_fields
    if not isinstance(module, ReportedDataset) or not (is_run or has_root):
        raise UserError(
            "no report for this kind of data set",
            expected="photos in your folders or archives, e.g. data.name: image_folder",
            found=f"data.name: {section.name}",
            where=where,
        )
    if not is_run:
        section = section.model_copy(update={"root": str(folder.absolute())})
    return module.report(section, DatasetContext(built.seed, built.workers))


def _by_class(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row per class with its splits as columns, then one for all classes."""
    by_class: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_class.setdefault(row["class"], []).append(row)
    shown = [_row(name, of) for name, of in by_class.items()]
    return [*shown, _row(f"all {len(shown)} classes", rows)]


def _row(name: str, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    used: Counter[str] = Counter()
    why: Counter[str] = Counter()
    for row in rows:
        used[row["split"]] += row["used"]
        why.update(row["left_out"])
    return {
        "class": name,
        "found": sum(row["found"] for row in rows),
        **used,
        "left out": ", ".join(f"{n} {reason}" for reason, n in why.items()),
    }
