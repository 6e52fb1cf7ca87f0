"""Your own photos: one folder per class, with or without train/, val/ and test/ above them."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from hwnas.core.config import LATER
from hwnas.core.confined import read_regular
from hwnas.core.errors import DataAbsent, UserError
from hwnas.core.rng import rng
from hwnas.core.store import content_hash
from hwnas.interfaces import DataIdentity, DataModule, DataPlan, DatasetContext, Split
from hwnas.training.class_list import listed_classes
from hwnas.training.file_hashes import (
    ChangedMeanwhile,
    bytes_hash,
    file_hashes,
    one_form,
    spelled,
)
from hwnas.training.identity import SPLITS
from hwnas.training.photo_config import AugmentConfig, PhotoConfig, data_root, relative_to
from hwnas.training.photo_folders import (
    SUFFIXES,
    Scan,
    class_folders,
    report,
    require_found,
    scan,
    split_folders,
)
from hwnas.training.splits import split_sizes

if TYPE_CHECKING:
    from hwnas.training.photos import Photos

__all__ = ["Config", "build", "ends", "identity", "plan"]

log = logging.getLogger(__name__)

CHANNELS = 3
MAX_IMAGE_BYTES = 1 << 30


class Config(PhotoConfig):
    """Where the photos lie, and how they are split and augmented.

    A split without a folder of its own gets its fraction of the training images, class by class.
    """

    name: Literal["image_folder"] = "image_folder"
    root: str = Field(default="images", description="folder, relative to $HWNAS_DATA")
    num_classes: Annotated[int | None, LATER] = Field(
        default=None, ge=2, description="has to be found; lets plans be made before the images are"
    )
    classes: Annotated[str | None, LATER] = Field(
        default=None,
        description="those of the starting weights, in their order, some maybe without images:"
        " `imagenet`, or a text file below `root` with a class folder's name on each line",
    )
    val_fraction: float = Field(default=0.15, gt=0, lt=1, description="where there is no val/")
    test_fraction: float = Field(default=0.15, gt=0, lt=1, description="where there is no test/")
    base_px: Annotated[int, Field(ge=8, le=1024)] = Field(
        default=64, description="the upright centre square of every photo is kept at this size"
    )
    skip_broken: bool = Field(default=False, description="leave out images that do not decode")
    repeat_to: Annotated[int, Field(ge=0, le=100_000), LATER] = 0
    """Training images of an epoch, at least: fewer are repeated, each time augmented anew."""
    augment: AugmentConfig = AugmentConfig(crop_scale=(0.35, 1.0))

    @model_validator(mode="after")
    def _leaves_training_images(self) -> Config:
        if self.val_fraction + self.test_fraction > 0.9:
            raise ValueError("val_fraction + test_fraction must be at most 0.9")
        return self


def ends(config: Config) -> tuple[int, int]:
    """Image channels and number of classes, known without loading an image."""
    if config.num_classes is not None:
        return CHANNELS, config.num_classes
    return CHANNELS, len(_names(config))


def identity(config: Config) -> DataIdentity:
    """Class folders and the content of every image, split by split.

    Raises:
        DataAbsent: no such folder.
        UserError: no class folders, empty ones, unequal ones between splits.
    """
    return _identity(_stored(config))


def plan(config: Config) -> DataPlan:
    """The sizes of the splits if all images decode.

    Raises:
        UserError: there are no class folders, and `num_classes` does not promise them.
    """
    root = data_root(config.root)
    if config.num_classes is not None and not root.is_dir():
        return DataPlan(awaited=f"there are no images at {root} yet (data.num_classes is given)")
    folders = _split_folders(config.root)
    names, listed = _names(config), config.classes is not None
    counts = {
        split: [len(found.images) for found in _by_class(split, at, names, config)]
        for split, at in folders.items()
    }
    n_images: dict[str, int] = {split: sum(found) for split, found in counts.items()}
    cut = _shares_to_cut(config, folders)
    whole = [n_images["train"]] if listed else counts["train"]
    *pieces, rest = split_sizes(whole, [*cut.values()])
    n_images |= {**dict(zip(cut, pieces, strict=True)), "train": rest * _repeats(config, rest)}
    return DataPlan(n_images, config.base_px, n_files=sum(map(sum, counts.values())))


def _shares_to_cut(config: Config, folders: Iterable[Split]) -> dict[Split, float]:
    """Shares of the training images, for the splits without a folder of their own."""
    shares: dict[Split, float] = {"val": config.val_fraction, "test": config.test_fraction}
    return {split: share for split, share in shares.items() if split not in folders}


def _repeats(config: Config, n_train: int) -> int:
    """How often an epoch has every training image."""
    return max(1, -(-config.repeat_to // max(1, n_train)))


def build(config: Config, context: DatasetContext) -> DataModule:
    """The data set with splits and augmentation drawn from the seed.

    Raises:
        UserError: no class folders, empty ones, unequal ones between splits, another number of them
            than `num_classes`; broken images.
        ChangedMeanwhile: an image changed while it was read.
    """
    from hwnas.training.data import stratified_split
    from hwnas.training.photos import photo_data

    stored = _stored(config)
    names = stored["train"].names
    if config.num_classes not in (None, len(names)):
        raise UserError(
            "another number of classes than promised",
            expected=f"data.num_classes = {config.num_classes} folders of classes",
            found=len(names),
            where=stored["train"].folder,
            fix="correct data.num_classes, or data.root",
        )
    for split, folder in stored.items():
        report(split, folder.folder, names, folder.scans)
    found: dict[Split, Photos] = {
        split: _read(folder, config, n_threads=max(1, context.n_workers))
        for split, folder in stored.items()
    }
    whole = found["train"]
    cut = _shares_to_cut(config, stored)
    groups = np.zeros_like(whole.labels) if config.classes is not None else whole.labels
    *pieces, rest = stratified_split(groups, [*cut.values()], rng(context.seed, "data/split"))
    parts = found | {split: whole.take(rows) for split, rows in zip(cut, pieces, strict=True)}
    parts["train"] = whole.take(np.tile(rest, _repeats(config, len(rest))))
    sizes = ", ".join(f"{split} {len(parts[split])}" for split in SPLITS)
    log.info("%s: %d classes; images: %s", data_root(config.root), len(names), sizes)
    return photo_data(
        data_root(config.root).name,
        names,
        parts,
        config.augment,
        seed=context.seed,
        n_workers=context.n_workers,
        digests=_identity(stored).digests,
        normalise=config.normalise,
        all_classes=config.classes is None,
    )


@dataclass(frozen=True)
class _Folder:
    """One folder of class folders.

    names: of the classes. files: relative to `folder`, class by class. labels: of the files.
    hashes: of their contents.
    """

    folder: Path
    names: tuple[str, ...]
    files: tuple[str, ...]
    labels: tuple[int, ...]
    hashes: Mapping[str, str]
    scans: tuple[Scan, ...]


def _stored(config: Config) -> dict[Split, _Folder]:
    """What lies in the folders of splits; the classes are those of the training images."""
    names, folders = _names(config), _split_folders(config.root)
    return {split: _listed(split, at, names, config) for split, at in folders.items()}


def _names(config: Config) -> tuple[str, ...]:
    """The classes: those that are listed, or those of the training images."""
    if config.classes is not None:
        return listed_classes(config.classes, data_root(config.root))
    return tuple(class_folders(_split_folders(config.root)["train"], least=2))


def _identity(stored: Mapping[Split, _Folder]) -> DataIdentity:
    files: dict[str, dict[str, str]] = {}
    for split, folder in stored.items():
        files[split] = {}
        for file, label in zip(folder.files, folder.labels, strict=True):
            name = f"{folder.names[label]}/{spelled(one_form(file.partition('/')[2]))}"
            while name in files[split]:  # two names that differ only in their Unicode form
                name += "'"
            files[split][name] = folder.hashes[file]
    parts: dict[str, str] = {split: split if split in stored else "train" for split in SPLITS}
    return DataIdentity(stored["train"].names, files, parts)


def _split_folders(root: str) -> dict[Split, Path]:
    """The folders of class folders: train/ and its siblings, or `root` alone."""
    folder = data_root(root)
    if not folder.is_dir():
        raise DataAbsent(
            "no such folder of images",
            expected="root/CLASS/*.jpg, or root/train/CLASS/*.jpg",
            where=folder,
            fix=f"set data.root or the environment variable HWNAS_DATA; {relative_to(root)}",
        )
    return split_folders(folder)


def _by_class(split: Split, folder: Path, names: tuple[str, ...], config: Config) -> list[Scan]:
    """The images of one split, relative to `folder`, for each of the classes.

    Raises:
        UserError: classes that are not among `names`, or have no training images though not listed;
            what cannot be read, unless `skip_broken`.
    """
    classes, listed = class_folders(folder), config.classes is not None
    if strangers := [name for name in classes if name not in names]:
        raise UserError(
            "more classes than " + ("data.classes lists" if listed else "the training images have"),
            expected=f"{len(names)} classes: {', '.join(names[:100])}",
            found=f"also {', '.join(strangers)}",
            where=folder,
            fix="add training images of these classes, or remove their folders",
        )
    by_class = [scan(classes[name]) if name in classes else Scan() for name in names]
    if not config.skip_broken:
        require_found(by_class, folder)
    empty = [name for name, found in zip(names, by_class, strict=True) if not found.images]
    if (empty and split == "train" and not listed) or len(empty) == len(names):
        raise UserError(
            "class folders without images",
            expected=f"files of {', '.join(sorted(SUFFIXES))}",
            found=", ".join(empty),
            where=folder,
            fix="add images, or remove the folders",
        )
    return by_class


def _listed(split: Split, folder: Path, names: tuple[str, ...], config: Config) -> _Folder:
    """The images of one split, class by class, with their hashes."""
    by_class = _by_class(split, folder, names, config)
    files = tuple(file for found in by_class for file in found.images)
    labels = tuple(label for label, found in enumerate(by_class) for _ in found.images)
    try:
        hashes = file_hashes(folder, files)
    except FileNotFoundError as error:
        raise ChangedMeanwhile(Path(error.filename)) from error
    return _Folder(folder, names, files, labels, hashes, tuple(by_class))


def _read(stored: _Folder, config: Config, *, n_threads: int) -> Photos:
    """All photos of one split, decoded."""
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
    images = Encoded([spelled(file) for file in stored.files], opened, content_hash(hashes))
    pixels, broken = decode(images, config.base_px, n_threads=n_threads)
    rows = good_rows(images, broken, skip=config.skip_broken, where=stored.folder)
    return Photos(pixels, rows, labels[rows], images.names, hashes)
