"""CIFAR-10: 60,000 photos of 32x32 in 10 classes; the official test images are the test split."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hwnas.interfaces import DataModule
from hwnas.training.photo_config import CifarConfig

__all__ = ["Config", "build", "ends"]

CHANNELS, CLASSES = 3, 10


class Config(CifarConfig):
    """Where the data set lies, and how it is split and augmented."""

    name: Literal["cifar10"] = "cifar10"
    root: str = Field(default="cifar10", description="folder, relative to $HWNAS_DATA")


def ends(config: Config) -> tuple[int, int]:
    """Image channels and number of classes, known without loading an image."""
    return CHANNELS, CLASSES


def build(config: Config, *, seed: int, n_workers: int = 0) -> DataModule:
    """The data set with its validation split and augmentation drawn from `seed`."""
    from hwnas.training.cifar import cifar

    return cifar(config, CLASSES, seed=seed, n_workers=n_workers)
