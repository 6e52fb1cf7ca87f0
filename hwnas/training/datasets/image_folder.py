"""Photos in one folder per class, with or without train/, val/ and test/ above them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from hwnas.core.config import LATER
from hwnas.core.errors import DataAbsent, Invalid, UserError
from hwnas.core.photo_rule import Scan
from hwnas.core.rng import rng
from hwnas.interfaces import DataIdentity, DataModule, DataPlan, DatasetContext, Split
from hwnas.training.class_list import listed_classes
from hwnas.training.identity import SPLITS
from hwnas.training.photo_config import AugmentConfig, PhotoConfig, data_root, relative_to
from hwnas.training.photo_folders import class_folders, split_folders
from hwnas.training.photo_store import (
    StoredPhotos,
    identity_of_photos,
    read_photos,
    scans_by_class,
    stored_photos,
)
from hwnas.training.splits import split_sizes, stratified_split

if TYPE_CHECKING:
    from hwnas.training.photo_report import PhotoReport
    from hwnas.training.photos import PhotoData, Photos

__all__ = ["Config", "build", "contents", "ends", "identity", "plan", "report"]

CHANNELS = 3


class Config(PhotoConfig):
    """Folder, splits and augmentation of the photos.

    A split without its own folder gets its fraction of the training images, class by class.
    """

    name: Literal["image_folder"] = "image_folder"
    root: str = Field(
        default="images",
        description="Folder of the photos, relative to $HWNAS_DATA (default: the working"
        " directory).",
    )
    num_classes: Annotated[int | None, LATER] = Field(
        default=None,
        ge=2,
        description="Expected number of classes, with which a run can be planned before the images"
        " exist; null: the number of folders.",
    )
    classes: Annotated[str | None, LATER] = Field(
        default=None,
        description=(
            "Classes of the starting weights, in their order; some may have no images."
            " `imagenet`, or a text file below `root` with the name of a class folder at the"
            " start of each line; null: the class folders, in the order of their names."
        ),
    )
    val_fraction: float = Field(
        default=0.15,
        gt=0,
        lt=1,
        description="Share of the training images used for validation; no effect with a folder"
        " val/.",
    )
    test_fraction: float = Field(
        default=0.15,
        gt=0,
        lt=1,
        description="Share of the training images used for the test; no effect with a folder"
        " test/.",
    )
    base_px: Annotated[int, Field(ge=8, le=1024)] = Field(
        default=64,
        description="Side in px to which the upright centre square of every photo is resized.",
    )
    skip_broken: bool = Field(
        default=False,
        description="Whether images that cannot be decoded are left out; false: they are an error.",
    )
    repeat_to: Annotated[int, Field(ge=0, le=100_000), LATER] = 0
    """Minimum number of training images per epoch. If there are fewer, they are repeated with new
    augmentation; 0: no repetition.
    """
    augment: AugmentConfig = AugmentConfig(crop_scale=(0.35, 1.0))

    @model_validator(mode="after")
    def _leaves_training_images(self) -> Config:
        if (held_out := self.val_fraction + self.test_fraction) > 0.9:
            raise Invalid("at most 0.9", f"{held_out:g}", key="val_fraction + test_fraction")
        return self


def ends(config: Config) -> tuple[int, int]:
    """Image channels and number of classes, known without loading an image."""
    if config.num_classes is not None:
        return CHANNELS, config.num_classes
    return CHANNELS, len(_names(config))


def identity(config: Config) -> DataIdentity:
    """Class folders and content hashes of all images, by split.

    Raises:
        DataAbsent: there is no such folder.
        UserError: no class folders, empty ones, or different ones between splits.
    """
    return identity_of_photos(_stored(config))


def plan(config: Config) -> DataPlan:
    """The sizes of the splits, assuming that every image can be decoded.

    If the folder is missing but `num_classes` is set, the plan says that the images are awaited.

    Raises:
        UserError: there are no class folders, and `num_classes` is not set.
    """
    root = data_root(config.root)
    if config.num_classes is not None and not os.path.isdir(root):
        return DataPlan(awaited=f"there are no images at {root} yet (data.num_classes is given)")
    folders = _split_folders(config.root)
    names, listed = _names(config), config.classes is not None
    counts = {
        split: [len(found.images) for found in _scans(split, at, names, config)]
        for split, at in folders.items()
    }
    n_images: dict[str, int] = {split: sum(found) for split, found in counts.items()}
    cut = _shares_to_cut(config, folders)
    whole = [n_images["train"]] if listed else counts["train"]
    *pieces, rest = split_sizes(whole, [*cut.values()])
    n_images |= {**dict(zip(cut, pieces, strict=True)), "train": rest * _repeats(config, rest)}
    return DataPlan(n_images, config.base_px, n_files=sum(map(sum, counts.values())))


def _shares_to_cut(config: Config, folders: Iterable[Split]) -> dict[Split, float]:
    """Shares of the training images for the splits without their own folder."""
    shares: dict[Split, float] = {"val": config.val_fraction, "test": config.test_fraction}
    return {split: share for split, share in shares.items() if split not in folders}


def _repeats(config: Config, n_train: int) -> int:
    """Number of repetitions of every training image in an epoch."""
    return max(1, -(-config.repeat_to // max(1, n_train)))


def build(config: Config, context: DatasetContext) -> DataModule:
    """The data set with seeded splits and augmentation.

    Raises:
        UserError: no class folders, empty ones, different ones between splits, a number of classes
            other than `num_classes`, or broken images.
        ChangedMeanwhile: an image changed while it was read.
    """
    from hwnas.training.photo_report import found_in_folders, log_report

    stored = _stored(config)
    folder, names = data_root(config.root), stored["train"].names
    if config.num_classes not in (None, len(names)):
        raise UserError(
            "the number of class folders differs from data.num_classes",
            expected=f"{config.num_classes} folders, one per class (data.num_classes)",
            found=f"{len(names)} folders",
            where=stored["train"].folder,
            fix="correct data.num_classes, or data.root",
        )
    parts = _parts(config, stored, context)
    log_report(found_in_folders(folder, stored, parts, skips_broken=config.skip_broken))
    return _data(config, context, stored, parts)


def report(config: Config, context: DatasetContext) -> PhotoReport:
    """Report on the folders, including photos that training would reject.

    Raises:
        UserError: no class folders, or classes without images.
    """
    from hwnas.training.photo_report import found_in_folders, report_of

    lenient = config.model_copy(update={"skip_broken": True})
    stored = _stored(lenient)
    parts, root = _parts(lenient, stored, context), data_root(config.root)
    found = found_in_folders(root, stored, parts, skips_broken=config.skip_broken)
    identity = identity_of_photos(stored)
    return report_of(found, lambda: _data(config, context, stored, parts), identity)


def _data(
    config: Config,
    context: DatasetContext,
    stored: Mapping[Split, StoredPhotos],
    parts: Mapping[Split, Photos],
) -> PhotoData:
    from hwnas.training.photos import photo_data

    return photo_data(
        data_root(config.root).name,
        stored["train"].names,
        parts,
        config.augment,
        seed=context.seed,
        n_workers=context.n_workers,
        digests=identity_of_photos(stored).digests,
        normalise=config.normalise,
        all_classes=config.classes is None,
        drawn=[split for split in SPLITS if split not in stored],
    )


def contents(config: Config, context: DatasetContext) -> dict[Split, dict[str, str]] | None:
    """Maps each split to the content hashes of its photos, by name; see `CutDataset`.

    Returns None if broken photos are left out, because they are only known after decoding.
    """
    if config.skip_broken:
        return None
    stored = _stored(config)
    labels = np.array(stored["train"].labels, dtype=np.int64)
    rows = _rows(config, stored, labels, context.seed)
    files = {split: (stored.get(split) or stored["train"]) for split in SPLITS}
    found: dict[Split, dict[str, str]] = {}
    for split, of in files.items():
        kept, shown = rows[split].tolist() if split in rows else range(len(of.files)), of.shown
        found[split] = {shown[row]: of.hashes[of.files[row]] for row in kept}
    return found


def _parts(
    config: Config, stored: Mapping[Split, StoredPhotos], context: DatasetContext
) -> dict[Split, Photos]:
    """The decoded photos of every split."""
    skips, n_threads = config.skip_broken, max(1, context.n_workers)
    found: dict[Split, Photos] = {
        split: read_photos(of, config.base_px, skip_broken=skips, n_threads=n_threads)
        for split, of in stored.items()
    }
    whole = found["train"]
    rows = _rows(config, stored, whole.labels, context.seed)
    parts = found | {split: whole.take(rows[split]) for split in rows}
    parts["train"] = whole.take(np.tile(rows["train"], _repeats(config, len(rows["train"]))))
    return parts


def _rows(
    config: Config, folders: Iterable[Split], labels: NDArray[np.int64], seed: int
) -> dict[Split, NDArray[np.int64]]:
    """Rows of the images in `train` for each split, for `train` and splits without a folder.

    labels: labels of the images in `train`.
    """
    cut = _shares_to_cut(config, folders)
    groups = np.zeros_like(labels) if config.classes is not None else labels
    pieces = stratified_split(groups, [*cut.values()], rng(seed, "data/split"))
    return dict(zip([*cut, "train"], pieces, strict=True))


def _stored(config: Config) -> dict[Split, StoredPhotos]:
    """Photos in the folders of the splits; the classes are those of the training images."""
    names, folders = _names(config), _split_folders(config.root)
    return {
        split: stored_photos(at, _scans(split, at, names, config), names)
        for split, at in folders.items()
    }


def _scans(split: Split, folder: Path, names: tuple[str, ...], config: Config) -> list[Scan]:
    is_listed, skips = config.classes is not None, config.skip_broken
    return scans_by_class(split, folder, names, is_listed=is_listed, skip_broken=skips)


def _names(config: Config) -> tuple[str, ...]:
    """The listed classes, or those of the training images."""
    if config.classes is not None:
        return listed_classes(config.classes, data_root(config.root))
    return tuple(class_folders(_split_folders(config.root)["train"], least=2))


def _split_folders(root: str) -> dict[Split, Path]:
    """The folders with class folders: train/ and its siblings, or only `root`."""
    folder = data_root(root)
    if not os.path.isdir(folder):
        raise DataAbsent(
            "no such folder of images",
            expected="root/CLASS/*.jpg, or root/train/CLASS/*.jpg",
            where=folder,
            fix=f"set data.root or the environment variable HWNAS_DATA; {relative_to(root)}",
        )
    return split_folders(folder)
