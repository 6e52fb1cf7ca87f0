"""Your own photos: one folder per class, with or without train/, val/ and test/ above them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

import numpy as np
from pydantic import Field, model_validator

from hwnas.core.config import LATER, StrictModel
from hwnas.core.errors import UserError
from hwnas.core.rng import rng
from hwnas.core.store import content_hash
from hwnas.interfaces import DataModule, DatasetContext, Split
from hwnas.training.photo_config import AugmentConfig, data_root

if TYPE_CHECKING:
    from hwnas.training.photos import Photos

__all__ = ["Config", "build", "ends"]

CHANNELS = 3
SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}


class Config(StrictModel):
    """Where the photos lie, and how they are split and augmented.

    A split without a folder of its own gets its fraction of the training images, class by class.
    """

    name: Literal["image_folder"] = "image_folder"
    root: str = Field(default="images", description="folder, relative to $HWNAS_DATA")
    num_classes: Annotated[int | None, LATER] = Field(
        default=None, ge=2, description="has to be found; lets plans be made before the images are"
    )
    val_fraction: float = Field(default=0.15, gt=0, lt=1, description="where there is no val/")
    test_fraction: float = Field(default=0.15, gt=0, lt=1, description="where there is no test/")
    base_px: Annotated[int, Field(ge=8, le=1024)] = Field(
        default=64, description="the upright centre square of every photo is kept at this size"
    )
    skip_broken: bool = Field(default=False, description="leave out images that do not decode")
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
    return CHANNELS, len(_class_names(_split_folders(data_root(config.root))["train"]))


def build(config: Config, context: DatasetContext) -> DataModule:
    """The data set with splits and augmentation drawn from the seed.

    Raises:
        UserError: no class folders, empty ones, unequal ones between splits, another number of them
            than `num_classes`; broken images.
    """
    from hwnas.training.data import stratified_split
    from hwnas.training.photos import photo_data

    root = data_root(config.root)
    folders = _split_folders(root)
    names = _class_names(folders["train"])
    if config.num_classes not in (None, len(names)):
        raise UserError(
            "another number of classes than promised",
            expected=f"data.num_classes = {config.num_classes} folders of classes",
            found=len(names),
            where=folders["train"],
            fix="correct data.num_classes, or data.root",
        )
    found: dict[Split, Photos] = {
        split: _read(folder, names, config, n_threads=max(1, context.n_workers))
        for split, folder in folders.items()
    }
    whole = found["train"]
    shares: dict[Split, float] = {"val": config.val_fraction, "test": config.test_fraction}
    cut = [split for split in shares if split not in found]
    fractions = [shares[split] for split in cut]
    *pieces, rest = stratified_split(whole.labels, fractions, rng(context.seed, "data/split"))
    parts = found | {split: whole.take(rows) for split, rows in zip(cut, pieces, strict=True)}
    parts["train"] = whole.take(rest)
    return photo_data(
        root.name, names, parts, config.augment, seed=context.seed, n_workers=context.n_workers
    )


def _split_folders(root: Path) -> dict[Split, Path]:
    """The folders of class folders: train/ and its siblings, or `root` alone."""
    if not root.is_dir():
        raise UserError(
            "no such folder of images",
            expected="root/CLASS/*.jpg, or root/train/CLASS/*.jpg",
            where=root,
            fix="set data.root or the environment variable HWNAS_DATA",
        )
    if not (root / "train").is_dir():
        return {"train": root}
    splits: tuple[Split, ...] = get_args(Split)
    return {split: root / split for split in splits if (root / split).is_dir()}


def _class_names(folder: Path) -> tuple[str, ...]:
    """Names of the class folders, sorted."""
    entries = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    names = tuple(name for name in entries if not name.startswith("."))
    if len(names) < 2:
        raise UserError(
            "a classifier needs two classes or more",
            expected="one folder per class",
            found=f"{len(names)} folders: {', '.join(names)}",
            where=folder,
            fix="sort the images into one folder per class",
        )
    return names


def _read(folder: Path, names: tuple[str, ...], config: Config, *, n_threads: int) -> Photos:
    """All photos of one split, decoded."""
    from hwnas.training.decode import Encoded, decode, good_rows
    from hwnas.training.photos import Photos

    strangers = sorted(set(_class_names(folder)) - set(names))
    if strangers:
        raise UserError(
            "more classes than the training images have",
            expected=f"{len(names)} classes: {', '.join(names)}",
            found=f"also {', '.join(strangers)}",
            where=folder,
            fix="add training images of these classes, or remove their folders",
        )
    files = [(label, file) for label, name in enumerate(names) for file in _images(folder / name)]
    labels = np.array([label for label, _ in files], dtype=np.int64)
    empty = [name for label, name in enumerate(names) if label not in labels]
    if empty:
        raise UserError(
            "class folders without images",
            expected=f"files of {', '.join(sorted(SUFFIXES))}",
            found=", ".join(empty),
            where=folder,
            fix="add images, or remove the folders",
        )
    stats = [(file.relative_to(folder).as_posix(), file.stat()) for _, file in files]
    key = content_hash([[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats])
    images = Encoded([name for name, _ in stats], lambda i: files[i][1].open("rb"), key)
    pixels, broken = decode(images, config.base_px, n_threads=n_threads)
    rows = good_rows(images, broken, skip=config.skip_broken, where=folder)
    return Photos(pixels, rows, labels[rows])


def _images(folder: Path) -> list[Path]:
    """Image files at any depth below a class folder, sorted."""
    return sorted(
        file
        for file in folder.rglob("*")
        if file.suffix.lower() in SUFFIXES and not file.name.startswith(".") and file.is_file()
    )
