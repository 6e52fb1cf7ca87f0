"""Folders of photos."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import hwnas
from hwnas.interfaces import DataIdentity
from hwnas.training.identity import describe_change
from hwnas.training.photo_folders import class_folders
from hwnas.training.photo_store import identity_of_photos, scans_by_class, stored_photos

N_CLASSES = 100
EACH = 20  # photos of a class


def imports() -> None:
    """What reading photos needs."""
    import torch  # noqa: F401

    from hwnas.training import photos  # noqa: F401


def _jpeg(number: int) -> bytes:
    """A photo of its own: 24 x 24 px."""
    pixels = np.random.default_rng(number).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG")
    return stream.getvalue()


def _write(folder: Path, n: int, n_classes: int) -> None:
    for i in range(n):
        path = folder / f"class{i % n_classes:04}" / f"{i}.jpg"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(_jpeg(i))


def make_photos(n: int, folder: Path) -> None:
    """n photos in 100 classes."""
    _write(folder / "photos", n, N_CLASSES)


def index_photos(n: int, folder: Path) -> dict[str, Any]:
    """All files hashed, then again with one changed file, as every command does."""
    photos = folder / "photos"

    def identity() -> DataIdentity:
        names = tuple(class_folders(photos))
        scans = scans_by_class("train", photos, names, is_listed=False, skip_broken=False)
        return identity_of_photos({"train": stored_photos(photos, scans, names)})

    before = identity()
    changed = photos / "class0007" / "107.jpg"
    changed.write_bytes(_jpeg(n))
    change = describe_change(before, identity())
    changed.write_bytes(_jpeg(107))
    return {"files": len(before.files["train"]), "change": change}


def make_classes(n: int, folder: Path) -> None:
    """20 photos in each of n classes."""
    _write(folder / "photos", EACH * n, n)


def plan_classes(n: int, folder: Path) -> dict[str, Any]:
    """A dry run: all photos hashed and decoded, splits cut, twins looked for."""
    root = str((folder / "photos").absolute())
    data = {"name": "image_folder", "root": root, "base_px": 24}
    space = {"name": "mobilenet_tiny", "resolutions": [24]}
    planned = hwnas.plan(folder / "run", config="digits", settings={"data": data, "space": space})
    return {"stages": len(planned), "checked": len(planned.facts["checked"])}
