"""Sign Language Digits: 1,645 photos of hands, 10 classes; ships with hwnas, no download.

From GitHub `ardamavi/Sign-Language-Digits-Dataset` (arXiv 2011.08927), Apache-2.0. The NOTICE next
to the archives lists changes. 218 students each showed the ten digits. No person is in both
training and validation images, or in both training and test images.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from hwnas.core.resources import resource
from hwnas.interfaces import DataIdentity, DataModule, DatasetContext
from hwnas.training.datasets._archives import (
    LEFT_OUT,
    ArchiveConfig,
    Archives,
    build_from_archives,
    report_on_archives,
)
from hwnas.training.identity import CUT_FROM_TRAIN, identity_of_files

if TYPE_CHECKING:
    from hwnas.training.photo_report import PhotoReport

__all__ = ["Config", "build", "ends", "identity", "inside", "people", "report"]

CHANNELS, CLASSES = 3, 10
TRAIN, TEST = "train.npz", "val.npz"


class Config(ArchiveConfig):
    """Splits and augmentation of the photos, which have 100 px.

    The 412 test photos are fixed. Validation photos are those of randomly drawn people.
    """

    name: Literal["sign_digits"] = "sign_digits"
    base_px: Annotated[int, Field(ge=8, le=512)] = Field(
        default=64, description="Side in px to which the photos, of 100 px, are resized."
    )
    val_fraction: float = Field(
        default=0.2,
        gt=0,
        lt=0.9,
        description="Share of the 1,233 photos outside the test set that is used for validation;"
        " all photos of a person stay together.",
    )


def ends(config: Config) -> tuple[int, int]:
    """Image channels and number of classes, known without loading an image."""
    return CHANNELS, CLASSES


def identity(config: Config) -> DataIdentity:
    """Content hashes of both archives."""
    names = [str(label) for label in range(CLASSES)]
    return identity_of_files(_folder(), {"train": [TRAIN], "test": [TEST]}, CUT_FROM_TRAIN, names)


def inside(config: Config) -> DataIdentity:
    """Identity of the archives, image by image; see `ArchivedDataset`."""
    from hwnas.training.npz import identity_of_archives

    return identity_of_archives({"train": _folder() / TRAIN, "test": _folder() / TEST})


def build(config: Config, context: DatasetContext) -> DataModule:
    """The data set with a seeded validation split and augmentation."""
    return build_from_archives(_archives(config), config, context)


def report(config: Config, context: DatasetContext) -> PhotoReport:
    """Report on the photos; those of the one person who is in both archives are left out."""
    return report_on_archives(_archives(config), config, context)


def _archives(config: Config) -> Archives:
    from hwnas.training.npz import read_archive

    train, test = _folder() / TRAIN, _folder() / TEST
    images = read_archive(train)
    groups = people(images.images.names, images.labels)
    return Archives(config.name, train, test, config.base_px, identity(config), groups)


def people(names: Sequence[str], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns a number of the person on each training photo, [n]; -1: also on test photos.

    Pictures are numbered in the order in which they were taken, and every person started with digit
    0. So the photos of a person are consecutive. The last person is also on test photos.
    """
    order = np.argsort([int(re.findall(r"\d+", name)[-1]) for name in names])
    digits = labels[order]
    begins = (digits == 0) & (np.roll(digits, 1) != 0)
    found: NDArray[np.int64] = np.empty(len(labels), dtype=np.int64)
    found[order] = np.cumsum(begins)
    found[found == found.max()] = LEFT_OUT
    return found


def _folder() -> Path:
    return resource("datasets", "sign_digits")
