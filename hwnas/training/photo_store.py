"""Photos in a folder per class: names, hashes, and decoded pixels. Torch-free."""

from __future__ import annotations

import io
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hwnas.core.confined import read_regular
from hwnas.core.errors import UserError
from hwnas.core.photo_rule import Scan, one_form, scan, text_of
from hwnas.core.store import content_hash
from hwnas.interfaces import DataIdentity, Split
from hwnas.training.file_hashes import (
    ChangedMeanwhile,
    bytes_hash,
    file_hashes,
    spelled,
)
from hwnas.training.identity import SPLITS
from hwnas.training.photo_folders import class_folders, require_found

if TYPE_CHECKING:
    from hwnas.training.photos import Photos

__all__ = ["StoredPhotos", "identity_of_photos", "read_photos", "scans_by_class", "stored_photos"]

MAX_IMAGE_BYTES = 1 << 30
SAY_S = 3.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StoredPhotos:
    """The photos below one folder that contains class folders.

    names: names of the classes.
    files: paths relative to `folder`, class by class.
    labels: class number of each file.
    hashes: maps files to content hashes.
    scans: what was found in each class folder.
    """

    folder: Path
    names: tuple[str, ...]
    files: tuple[str, ...]
    labels: tuple[int, ...]
    hashes: Mapping[str, str]
    scans: tuple[Scan, ...]

    @property
    def shown(self) -> list[str]:
        """Names of the files as text."""
        return [spelled(text_of(file)) for file in self.files]


def scans_by_class(
    split: Split, folder: Path, names: tuple[str, ...], *, is_listed: bool, skip_broken: bool
) -> list[Scan]:
    """The images of one split, relative to `folder`, for each of the classes.

    is_listed: whether `names` come from a list instead of the training images.

    Raises:
        UserError: a class folder is not in `names`; no class has images; a class has no training
            images and `is_listed` is false; or files cannot be read and `skip_broken` is false.
    """
    classes = class_folders(folder)
    if strangers := [name for name in classes if name not in names]:
        raise UserError(
            f"the {split} images have more classes than "
            + ("data.classes lists" if is_listed else "the training images"),
            expected=f"{len(names)} classes: {', '.join(names[:100])}",
            found=f"also {', '.join(strangers)}",
            where=folder,
            fix="add training images of these classes, or remove their folders",
        )
    seen = _Seen(folder)
    by_class = [scan(classes[name], seen=seen) if name in classes else Scan() for name in names]
    if not skip_broken:
        require_found(by_class, folder)
    empty = [name for name, found in zip(names, by_class, strict=True) if not found.images]
    if (empty and split == "train" and not is_listed) or len(empty) == len(names):
        raise UserError(
            "no class folder has images"
            if len(empty) == len(names)
            else "some class folders have no images",
            expected="files with the ending .jpg, .png, .webp or .tif, or another format that"
            " Pillow reads",
            found=", ".join(_emptiness(name, by_class[names.index(name)]) for name in empty),
            where=folder,
            fix="add images, or remove the folders",
        )
    return by_class


class _Seen:
    """Counts files, and says every `SAY_S` seconds how many; most folders are read sooner."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._n, self._said = folder, 0, time.monotonic()

    def __call__(self) -> None:
        self._n += 1
        if (now := time.monotonic()) - self._said > SAY_S:
            self._said = now
            log.info("%s: looking for images, %s files so far", self._folder, f"{self._n:,}")


def _emptiness(name: str, found: Scan) -> str:
    """Describes a class without images, and its other files."""
    there = [f"{n} {ending}" for ending, n in found.left_out.most_common()]
    there += [f"{len(found.lost)} that cannot be read"] * bool(found.lost)
    return f"{name} ({', '.join(there)})" if there else name


def stored_photos(folder: Path, by_class: Sequence[Scan], names: tuple[str, ...]) -> StoredPhotos:
    """Computes the hashes of photos that were found in class folders.

    Raises:
        ChangedMeanwhile: a photo was removed or changed.
    """
    files = tuple(file for found in by_class for file in found.images)
    labels = tuple(label for label, found in enumerate(by_class) for _ in found.images)
    try:
        hashes = file_hashes(folder, files)
    except FileNotFoundError as error:
        raise ChangedMeanwhile(Path(error.filename)) from error
    return StoredPhotos(folder, names, files, labels, hashes, tuple(by_class))


def identity_of_photos(stored: Mapping[Split, StoredPhotos]) -> DataIdentity:
    """The identity of photos in one folder per split; other splits are drawn from `train`."""
    files: dict[str, dict[str, str]] = {}
    for split, folder in stored.items():
        files[split] = {}
        for file, label in zip(folder.files, folder.labels, strict=True):
            name = f"{folder.names[label]}/{spelled(one_form(text_of(file).partition('/')[2]))}"
            while name in files[split]:  # two names that differ only in their Unicode form
                name += "'"
            files[split][name] = folder.hashes[file]
    parts: dict[str, str] = {split: split if split in stored else "train" for split in SPLITS}
    return DataIdentity(stored["train"].names, files, parts)


def read_photos(stored: StoredPhotos, px: int, *, skip_broken: bool, n_threads: int) -> Photos:
    """All photos of one split as centre squares of px x px.

    Raises:
        UserError: broken photos, unless `skip_broken`.
        ChangedMeanwhile: a photo has changed since it was listed.
    """
    from hwnas.training.decode import Encoded, decode, good_rows
    from hwnas.training.photos import Photos

    def opened(i: int) -> io.BytesIO:
        path = stored.folder / stored.files[i]
        data = read_regular(path, at_most=MAX_IMAGE_BYTES)
        if bytes_hash(data) != stored.hashes[stored.files[i]]:
            raise ChangedMeanwhile(path)
        return io.BytesIO(data)

    labels = np.array(stored.labels, dtype=np.int64)
    hashes = [stored.hashes[file] for file in stored.files]
    images = Encoded(stored.shown, opened, content_hash(hashes))
    pixels, broken = decode(images, px, n_threads=n_threads)
    rows = good_rows(images, broken, skip=skip_broken, where=stored.folder)
    flaws = {row: (stored.labels[row], why) for row, why in broken}
    return Photos(pixels, rows, labels[rows], images.names, hashes, flaws)
