"""CIFAR-10 and CIFAR-100 from the official Python batches, or from archives of JPEG files."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from hwnas.core.errors import DataAbsent, UserError
from hwnas.core.rng import rng
from hwnas.interfaces import DataIdentity, DataModule, DataPlan, DatasetContext, Split
from hwnas.training.datasets._archives import data_of, found_in_archives
from hwnas.training.file_hashes import bytes_hash
from hwnas.training.identity import CUT_FROM_TRAIN, identity_of_files
from hwnas.training.photo_config import AugmentConfig, PhotoConfig, data_root, relative_to

if TYPE_CHECKING:
    from hwnas.training.photo_report import FoundPhotos, PhotoReport
    from hwnas.training.photos import PhotoData, Photos

__all__ = ["CifarConfig", "build", "ends", "identity", "inside", "plan", "report"]

log = logging.getLogger(__name__)

CHANNELS, PX = 3, 32

TRAIN, TEST = "train.npz", "val.npz"
ARCHIVES = {"train": [TRAIN], "test": [TEST]}
BATCHES = {
    "cifar10": {
        "train": [f"cifar-10-batches-py/data_batch_{n}" for n in range(1, 6)],
        "test": ["cifar-10-batches-py/test_batch"],
    },
    "cifar100": {"train": ["cifar-100-python/train"], "test": ["cifar-100-python/test"]},
}
"""Maps each data set and split to the official files."""


class CifarConfig(PhotoConfig):
    """Folder, splits and augmentation of a CIFAR data set."""

    N_CLASSES: ClassVar[int]

    name: Literal["cifar10", "cifar100"]
    root: str
    n_val: Annotated[int, Field(ge=1)] = Field(
        default=5000, description="Number of training images used for validation."
    )
    download: bool = Field(
        default=True, description="Whether the official files are downloaded if they are missing."
    )
    augment: AugmentConfig = AugmentConfig()


def ends(config: CifarConfig) -> tuple[int, int]:
    """Image channels and number of classes, known without loading an image."""
    return CHANNELS, config.N_CLASSES


def identity(config: CifarConfig) -> DataIdentity:
    """Content hashes of the archives, or of the official files.

    Raises:
        DataAbsent: the files are missing.
    """
    folder = data_root(config.root)
    stored = ARCHIVES if (folder / TRAIN).exists() else BATCHES[config.name]
    names = [str(label) for label in range(config.N_CLASSES)]
    return identity_of_files(folder, stored, CUT_FROM_TRAIN, names)


def inside(config: CifarConfig) -> DataIdentity | None:
    """Identity of the archives, image by image; None for the official files, which never change.

    Raises:
        UserError: an archive is missing or damaged.
    """
    from hwnas.training.npz import identity_of_archives

    folder = data_root(config.root)
    if not (folder / TRAIN).exists():
        return None
    return identity_of_archives({"train": folder / TRAIN, "test": folder / TEST})


def plan(config: CifarConfig) -> DataPlan | None:
    """The plan of a data set that will be downloaded; None if the files exist."""
    folder = data_root(config.root)
    known = (TRAIN, BATCHES[config.name]["test"][0])
    if any((folder / name).exists() for name in known) or not config.download:
        return None
    return DataPlan(awaited=f"{config.name} is downloaded into {folder} when the run starts")


def build(config: CifarConfig, context: DatasetContext) -> DataModule:
    """The data set in `root`: official test images as test, a stratified `n_val` of train as val.

    `root` contains `train.npz` and `val.npz` (the latter are official TEST images; see `npz`), or
    the folder of the Python batches. torchvision downloads these, and verifies them before it
    unpickles them.

    Raises:
        UserError: files are missing, damaged or have other classes.
    """
    from hwnas.training.photo_report import log_report

    found = _found(config, context, skip_broken=False)
    log_report(found)
    return _data(config, context, found)


def report(config: CifarConfig, context: DatasetContext) -> PhotoReport:
    """Report on the images, including those that training would reject.

    Raises:
        UserError: files are missing, damaged or have other classes.
    """
    from hwnas.training.photo_report import report_of

    found = _found(config, context, skip_broken=True)
    return report_of(found, lambda: _data(config, context, found), identity(config))


def _data(config: CifarConfig, context: DatasetContext, found: FoundPhotos) -> PhotoData:
    return data_of(config.name, found, identity(config), config.augment, config, context)


def _found(config: CifarConfig, context: DatasetContext, *, skip_broken: bool) -> FoundPhotos:
    from hwnas.training.photos import photos_of_archives
    from hwnas.training.splits import stratified_split

    folder = data_root(config.root)
    if (folder / TRAIN).exists():
        names, official = photos_of_archives(
            [folder / TRAIN, folder / TEST],
            PX,
            skip_broken=skip_broken,
            n_threads=max(1, context.n_workers),
        )
    else:
        names, official = _from_batches(config, folder)
    if len(names) != config.N_CLASSES:
        raise UserError(
            f"the images have other classes than {config.name}",
            expected=f"{config.N_CLASSES} classes",
            found=f"{len(names)} classes: {', '.join(map(str, names[:20]))}",
            where=folder,
            fix="correct data.root; for other classes, use the data set image_folder",
        )
    train, test = official
    n, n_val = len(train), config.n_val
    if n_val >= n:
        less = f"less than the {n} training images"
        raise UserError(
            "data.n_val leaves no training images", expected=less, found=f"data.n_val = {n_val}"
        )
    kept, val = stratified_split(train.labels, (1 - n_val / n,), rng(context.seed, "data/split"))
    parts: dict[Split, Photos] = {"train": train.take(kept), "val": train.take(val), "test": test}
    return found_in_archives(folder, names, parts, train, skips_broken=False)


def _from_batches(config: CifarConfig, folder: Path) -> tuple[tuple[str, ...], list[Photos]]:
    from torchvision import datasets

    from hwnas.training.photos import Photos

    name, download = config.name, config.download

    kind = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
    absent = not (folder / kind.base_folder).is_dir()
    if absent and download:
        log.info("downloading %s into %s", name, folder)
    try:
        splits = [kind(str(folder), train=train, download=download and absent) for train in (1, 0)]
    except (RuntimeError, OSError, ValueError) as error:
        raise (DataAbsent if absent else UserError)(
            f"the files of {name} are {'missing' if absent else 'damaged'}",
            expected=f"{kind.base_folder}/ with the official Python batches, or train.npz, val.npz",
            found=f"{type(error).__name__}: {error}",
            where=folder,
            fix=f"unpack {kind.url} there, or set data.root or the environment variable HWNAS_DATA;"
            f" {relative_to(config.root)}",
        ) from error
    labels = [np.asarray(split.targets, dtype=np.int64) for split in splits]
    photos = []
    for split, y in zip(splits, labels, strict=True):
        names = [f"{split.classes[label]}/{i:05d}" for i, label in enumerate(y.tolist())]
        hashes = [bytes_hash(image.tobytes()) for image in split.data]
        photos.append(Photos(split.data, np.arange(len(y)), y, names, hashes))
    return tuple(splits[0].classes), photos
