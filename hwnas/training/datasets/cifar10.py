"""CIFAR-10: 60,000 photos of 32x32 in 10 classes; the official test images are the test split."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from hwnas.training.datasets._cifar import CifarConfig, build, ends, identity, inside, plan, report

__all__ = ["Config", "build", "ends", "identity", "inside", "plan", "report"]


class Config(CifarConfig):
    """Folder, splits and augmentation of the data set."""

    N_CLASSES: ClassVar[int] = 10

    name: Literal["cifar10"] = "cifar10"
    root: str = Field(
        default="cifar10",
        description="Folder of the data set, relative to $HWNAS_DATA (default: the working"
        " directory).",
    )
