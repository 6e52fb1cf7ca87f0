"""Photos in .npz archives of JPEG files (see `training.npz`), e.g. Tiny-ImageNet."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hwnas.interfaces import DataIdentity, DataModule, DatasetContext
from hwnas.training.datasets._archives import ArchiveConfig, build_from_archives
from hwnas.training.identity import CUT_FROM_TRAIN, identity_of_files
from hwnas.training.photo_config import data_root

__all__ = ["Config", "build", "ends", "identity", "inside"]

CHANNELS = 3


class Config(ArchiveConfig):
    """Where the archives lie, and how they are split and augmented.

    `test_file` is looked at once, at the very end: where a data set has no test labels, this is its
    official validation set, and validation images are cut from the training set.
    """

    name: Literal["npz_jpeg"] = "npz_jpeg"
    root: str = Field(default="tiny_imagenet50", description="folder, relative to $HWNAS_DATA")
    train_file: str = "train.npz"
    """Archive of the images that are trained and validated on."""
    test_file: str = "val.npz"
    """Archive of the test images, looked at once, at the very end."""
    base_px: Annotated[int, Field(ge=8, le=1024)] = Field(
        default=64, description="the centre square of every photo is kept at this size"
    )


def ends(config: Config) -> tuple[int, int]:
    """Image channels and number of classes, known without loading an image."""
    from hwnas.training.npz import read_class_names

    return CHANNELS, len(read_class_names(data_root(config.root) / config.train_file))


def identity(config: Config) -> DataIdentity:
    """Names of the classes and the content of both archives.

    Raises:
        DataAbsent: an archive is not here.
        UserError: the first one is damaged.
    """
    from hwnas.training.npz import read_class_names

    folder = data_root(config.root)
    names = read_class_names(folder / config.train_file)
    stored = {"train": [config.train_file], "test": [config.test_file]}
    return identity_of_files(folder, stored, CUT_FROM_TRAIN, names)


def inside(config: Config) -> DataIdentity:
    """Classes and images that the archives hold; see `ArchivedDataset`.

    Raises:
        UserError: an archive is missing or damaged.
    """
    from hwnas.training.npz import identity_of_archives

    folder = data_root(config.root)
    return identity_of_archives(
        {"train": folder / config.train_file, "test": folder / config.test_file}
    )


def build(config: Config, context: DatasetContext) -> DataModule:
    """The data set with its validation split and augmentation drawn from the seed.

    Raises:
        UserError: archives that are missing, damaged or of unequal classes; broken images.
    """
    from hwnas.training.npz import read_groups

    folder = data_root(config.root)
    paths = folder / config.train_file, folder / config.test_file
    return build_from_archives(
        folder.name,
        paths,
        config.base_px,
        config,
        context,
        digests=identity(config).digests,
        groups=read_groups(paths[0]),
    )
