"""Data sets in two archives of JPEG files (`training.npz`): training images, and test images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from hwnas.core.rng import rng
from hwnas.interfaces import DataIdentity, DataModule, DatasetContext, Split
from hwnas.training.photo_config import AugmentConfig, PhotoConfig

if TYPE_CHECKING:
    from hwnas.training.photo_report import FoundPhotos, PhotoReport
    from hwnas.training.photos import PhotoData, Photos

__all__ = [
    "LEFT_OUT",
    "ArchiveConfig",
    "Archives",
    "build_from_archives",
    "data_of",
    "found_in_archives",
    "report_on_archives",
]

LEFT_OUT = -1
IN_NO_SPLIT = "that the data set leaves out"


class ArchiveConfig(PhotoConfig):
    """Settings that all data sets in archives share."""

    val_fraction: float = Field(
        default=0.1,
        gt=0,
        lt=0.9,
        description="Share of the training images that is used for validation.",
    )
    skip_broken: bool = Field(
        default=False,
        description="Whether images that cannot be decoded are left out; false: they are an error.",
    )
    augment: AugmentConfig = AugmentConfig(crop_scale=(0.35, 1.0))


@dataclass(frozen=True)
class Archives:
    """Archives of training and test images, to be resized to px x px.

    groups: group of each training image, [n]. Each group is completely in one split; the group
        `LEFT_OUT` is in none. None: validation images are drawn class by class.
    """

    name: str
    train: Path
    test: Path
    px: int
    identity: DataIdentity
    groups: NDArray[np.int64] | None = None


def build_from_archives(
    archives: Archives, config: ArchiveConfig, context: DatasetContext
) -> DataModule:
    """The data set of archives. Validation images are split off the training images.

    Raises:
        UserError: archives are missing, damaged or have different classes; broken images; or there
            is only one group.
    """
    from hwnas.training.photo_report import log_report

    found = _found(archives, config, context, skip_broken=config.skip_broken)
    log_report(found)
    return _data(archives, found, config, context)


def report_on_archives(
    archives: Archives, config: ArchiveConfig, context: DatasetContext
) -> PhotoReport:
    """Report on archives, including images that training would reject.

    Raises:
        UserError: archives are missing, damaged or have different classes; or there is only one
            group.
    """
    from hwnas.training.photo_report import report_of

    found = _found(archives, config, context, skip_broken=True)
    return report_of(found, lambda: _data(archives, found, config, context), archives.identity)


def found_in_archives(
    folder: Path,
    names: tuple[str, ...],
    parts: Mapping[Split, Photos],
    whole: Photos,
    *,
    skips_broken: bool,
) -> FoundPhotos:
    """The photos of two archives by split, and how many are left out for which reason.

    parts: the photos of each split.
    whole: all photos of the archive from which training and validation images are drawn.
    skips_broken: the setting `data.skip_broken`.
    """
    from hwnas.training.photo_report import NOT_DECODED, FoundPhotos, broken_by_class, not_decoded

    used = np.concatenate([parts["train"].rows, parts["val"].rows])
    unused = whole.labels[~np.isin(whole.rows, used)]
    n_unused = np.bincount(unused, minlength=len(names)).tolist()
    broken = {split: broken_by_class(of, names) for split, of in parts.items() if split != "val"}
    left_out: dict[Split, list[Mapping[str, int]]] = {
        "train": [
            {IN_NO_SPLIT: n, NOT_DECODED: b} for n, b in zip(n_unused, broken["train"], strict=True)
        ],
        "test": [{NOT_DECODED: n} for n in broken["test"]],
    }
    texts = [not_decoded(parts[split]) for split in left_out if not skips_broken]
    fix = "repair or remove them, or set data.skip_broken"
    refused = tuple(f"{folder}: {text}: {fix}" for text in texts if text)
    return FoundPhotos(folder, names, parts, left_out, refused=refused)


def _found(
    archives: Archives, config: ArchiveConfig, context: DatasetContext, *, skip_broken: bool
) -> FoundPhotos:
    from hwnas.training.photos import photos_of_archives
    from hwnas.training.splits import grouped_split, stratified_split

    paths, n_threads = (archives.train, archives.test), max(1, context.n_workers)
    names, (whole, test) = photos_of_archives(
        paths, archives.px, skip_broken=skip_broken, n_threads=n_threads
    )
    draw, fractions = rng(context.seed, "data/split"), (1 - config.val_fraction,)
    if archives.groups is None:
        kept = stratified_split(whole.labels, fractions, draw)
    else:
        groups = archives.groups[whole.rows]  # groups of images that can be decoded
        used = np.flatnonzero(groups != LEFT_OUT)
        kept = [used[rows] for rows in grouped_split(groups[used], config.val_fraction, draw)]
    train, val = (whole.take(rows) for rows in kept)
    parts: dict[Split, Photos] = {"train": train, "val": val, "test": test}
    skips = config.skip_broken
    return found_in_archives(archives.train.parent, names, parts, whole, skips_broken=skips)


def data_of(
    name: str,
    found: FoundPhotos,
    identity: DataIdentity,
    augment: AugmentConfig,
    config: PhotoConfig,
    context: DatasetContext,
) -> PhotoData:
    """Makes a data set from the photos `found`.

    identity: identity of the files that contain the photos.
    """
    from hwnas.training.photos import photo_data

    return photo_data(
        name,
        found.names,
        found.parts,
        augment,
        seed=context.seed,
        n_workers=context.n_workers,
        digests=identity.digests,
        normalise=config.normalise,
        drawn=["val"],
    )


def _data(
    archives: Archives, found: FoundPhotos, config: ArchiveConfig, context: DatasetContext
) -> PhotoData:
    return data_of(archives.name, found, archives.identity, config.augment, config, context)
