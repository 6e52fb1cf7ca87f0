"""Photos in .npz archives of JPEG files (see `training.npz`), e.g. Tiny-ImageNet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from hwnas.interfaces import DataIdentity, DataModule, DatasetContext
from hwnas.training.datasets._archives import (
    ArchiveConfig,
    Archives,
    build_from_archives,
    report_on_archives,
)
from hwnas.training.identity import CUT_FROM_TRAIN, identity_of_files
from hwnas.training.photo_config import data_root

if TYPE_CHECKING:
    from hwnas.training.photo_report import PhotoReport

__all__ = ["Config", "build", "ends", "identity", "inside", "report"]

CHANNELS = 3


class Config(ArchiveConfig):
    """Folder, splits and augmentation of the archives.

    `test_file` is only used once, at the end. If a data set has no test labels, this is its
    official validation set, and validation images are split off the training set.
    """

    name: Literal["npz_jpeg"] = "npz_jpeg"
    root: str = Field(
        default="tiny_imagenet50",
        description="Folder of the archives, relative to $HWNAS_DATA (default: the working"
        " directory).",
    )
    train_file: str = "train.npz"
    """Archive of the training and validation images."""
    test_file: str = "val.npz"
    """Archive of the test images, which are only used once, at the end."""
    base_px: Annotated[int, Field(ge=8, le=1024)] = Field(
        default=64, description="Side in px to which the centre square of every photo is resized."
    )


def ends(config: Config) -> tuple[int, int]:
    """Image channels and number of classes, known without loading an image."""
    from hwnas.training.npz import read_class_names

    return CHANNELS, len(read_class_names(data_root(config.root) / config.train_file))


def identity(config: Config) -> DataIdentity:
    """Names of the classes, and content hashes of both archives.

    Raises:
        DataAbsent: an archive is missing.
        UserError: the first archive is damaged.
    """
    from hwnas.training.npz import read_class_names

    folder = data_root(config.root)
    names = read_class_names(folder / config.train_file)
    stored = {"train": [config.train_file], "test": [config.test_file]}
    return identity_of_files(folder, stored, CUT_FROM_TRAIN, names)


def inside(config: Config) -> DataIdentity:
    """Identity of the archives, image by image; see `ArchivedDataset`.

    Raises:
        UserError: an archive is missing or damaged.
    """
    from hwnas.training.npz import identity_of_archives

    folder = data_root(config.root)
    return identity_of_archives(
        {"train": folder / config.train_file, "test": folder / config.test_file}
    )


def build(config: Config, context: DatasetContext) -> DataModule:
    """The data set with a seeded validation split and augmentation.

    Raises:
        UserError: archives are missing, damaged or have different classes; or broken images.
    """
    return build_from_archives(_archives(config), config, context)


def report(config: Config, context: DatasetContext) -> PhotoReport:
    """Report on the archives, including images that training would reject.

    Raises:
        UserError: archives are missing, damaged or have different classes.
    """
    return report_on_archives(_archives(config), config, context)


def _archives(config: Config) -> Archives:
    from hwnas.training.npz import read_groups

    folder = data_root(config.root)
    train, test = folder / config.train_file, folder / config.test_file
    return Archives(folder.name, train, test, config.base_px, identity(config), read_groups(train))
