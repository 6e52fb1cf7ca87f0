"""Data sets in two archives of JPEG files (`training.npz`): training images, and test images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from hwnas.core.rng import rng
from hwnas.interfaces import DataModule, DatasetContext, Split
from hwnas.training.photo_config import AugmentConfig, PhotoConfig

__all__ = ["LEFT_OUT", "ArchiveConfig", "build_from_archives"]

LEFT_OUT = -1


class ArchiveConfig(PhotoConfig):
    """Settings that all data sets in archives share."""

    val_fraction: float = Field(
        default=0.1,
        gt=0,
        lt=0.9,
        description="Share of the training images that is used for validation.",
    )
    skip_broken: bool = Field(default=False, description="Leave out images that cannot be decoded.")
    augment: AugmentConfig = AugmentConfig(crop_scale=(0.35, 1.0))


def build_from_archives(
    name: str,
    paths: tuple[Path, Path],
    px: int,
    config: ArchiveConfig,
    context: DatasetContext,
    *,
    digests: Mapping[str, str],
    groups: NDArray[np.int64] | None = None,
) -> DataModule:
    """The data set of archives of training and test images. Validation is split off training.

    groups: group of each training image, [n]. Each group is completely in one split; the group
        `LEFT_OUT` is in none. None: images are drawn class by class.

    Raises:
        UserError: archives are missing, damaged or have different classes; broken images; or there
            is only one group.
    """
    from hwnas.training.photos import Photos, photo_data, photos_of_archives
    from hwnas.training.splits import grouped_split, stratified_split

    names, (whole, test) = photos_of_archives(
        paths, px, skip_broken=config.skip_broken, n_threads=max(1, context.n_workers)
    )
    draw, fractions = rng(context.seed, "data/split"), (1 - config.val_fraction,)
    if groups is None:
        kept = stratified_split(whole.labels, fractions, draw)
    else:
        groups = groups[whole.rows]  # groups of images that can be decoded
        used = np.flatnonzero(groups != LEFT_OUT)
        kept = [used[rows] for rows in grouped_split(groups[used], config.val_fraction, draw)]
    train, val = (whole.take(rows) for rows in kept)
    parts: dict[Split, Photos] = {"train": train, "val": val, "test": test}
    return photo_data(
        name,
        names,
        parts,
        config.augment,
        seed=context.seed,
        n_workers=context.n_workers,
        digests=digests,
        normalise=config.normalise,
    )
