"""Handwritten digits of scikit-learn: 1,797 real 8x8 images, 10 classes, no download."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field, model_validator

from hwnas.core.config import StrictModel
from hwnas.core.errors import Invalid
from hwnas.core.rng import rng
from hwnas.core.store import content_hash
from hwnas.interfaces import (
    DataIdentity,
    DataInfo,
    DataModule,
    DataPlan,
    DatasetContext,
)
from hwnas.training.identity import SPLITS, identity_of_files
from hwnas.training.splits import split_sizes

if TYPE_CHECKING:
    from hwnas.training.photo_report import FoundPhotos, PhotoReport

__all__ = ["Config", "Warp", "build", "ends", "identity", "plan", "report"]

CHANNELS, CLASSES = 3, 10
FILE = "datasets/data/digits.csv.gz"  # in scikit-learn
COUNTS = (178, 182, 177, 183, 181, 182, 181, 179, 174, 180)  # images per class


class Warp(StrictModel):
    """Maximum random distortions of a training image, each drawn uniformly; 0 disables it."""

    rotate_degrees: float = Field(
        default=10.0,
        ge=0,
        le=180,
        description="Largest random rotation in either direction, in degrees.",
    )
    scale: float = Field(
        default=0.1,
        ge=0,
        lt=1,
        description="Largest random change of size per axis; 0.1: factors from 0.9 to 1.1.",
    )
    shear: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="Largest random horizontal shear, relative to the height.",
    )
    shift: float = Field(
        default=0.06,
        ge=0,
        le=1,
        description="Largest random shift per axis, relative to the image size.",
    )
    elastic: float = Field(
        default=0.04,
        ge=0,
        le=1,
        description="Largest random displacement of the points of a 4x4 grid, relative to the"
        " image size.",
    )


class Config(StrictModel):
    """Parameters of the data set. Images are upsampled to `base_px` and repeated to 3 channels."""

    name: Literal["digits"] = "digits"
    base_px: int = Field(default=24, ge=8, le=512)
    """Side in px to which the 8x8 images are upsampled."""
    val_fraction: float = Field(default=0.2, gt=0, lt=1)
    """Share of all images that is used for validation."""
    test_fraction: float = Field(default=0.2, gt=0, lt=1)
    """Share of all images that is used for testing."""
    noise_std: float = Field(
        default=0.0,
        ge=0,
        le=10,
        description=(
            "Standard deviation of the Gaussian noise that is added to all images, whose pixels"
            " are in [0, 1]. Training images get new noise in every epoch. Without noise the"
            " digits are so easy that good and bad networks score alike."
        ),
    )
    augment: Warp = Warp()

    @model_validator(mode="after")
    def _leaves_training_images(self) -> Config:
        if (held_out := self.val_fraction + self.test_fraction) > 0.9:
            raise Invalid("at most 0.9", f"{held_out:g}", key="val_fraction + test_fraction")
        return self


def ends(config: Config) -> tuple[int, int]:
    """Image channels and number of classes, known without loading an image."""
    return CHANNELS, CLASSES


def identity(config: Config) -> DataIdentity:
    """Content hash of the file in scikit-learn from which all splits are drawn.

    Raises:
        DataAbsent: scikit-learn or the file is missing.
    """
    parts = dict.fromkeys(("train", "val", "test"), "train")
    names = [str(label) for label in range(CLASSES)]
    return identity_of_files(_folder(), {"train": [FILE]}, parts, names)


def _folder() -> Path:
    """The folder of scikit-learn, without importing it."""
    found = importlib.util.find_spec("sklearn")
    return Path("sklearn" if found is None or found.origin is None else found.origin).parent


def plan(config: Config) -> DataPlan:
    """The sizes of the splits, computed without scikit-learn."""
    train, val, test = split_sizes(COUNTS, _fractions(config))
    return DataPlan({"train": train, "val": val, "test": test}, config.base_px)


def _fractions(config: Config) -> tuple[float, float]:
    """Shares of training and validation images."""
    return 1 - config.val_fraction - config.test_fraction, config.val_fraction


def build(config: Config, context: DatasetContext) -> DataModule:
    """The data set with seeded splits and augmentation; it is too small to need workers."""
    from hwnas.training.photo_report import log_report

    found = _found(config, context)
    log_report(found)
    return _data(config, context, found)


def report(config: Config, context: DatasetContext) -> PhotoReport:
    """Number of images per class and split."""
    from hwnas.training.photo_report import report_of

    found = _found(config, context)
    return report_of(found, lambda: _data(config, context, found), identity(config))


def _found(config: Config, context: DatasetContext) -> FoundPhotos:
    """The images of 8x8 grey levels 0 .. 16, by split."""
    from sklearn.datasets import load_digits

    from hwnas.training.photo_report import FoundPhotos
    from hwnas.training.photos import Photos
    from hwnas.training.splits import stratified_split

    bunch = load_digits()
    labels = np.asarray(bunch.target, dtype=np.int64)
    pixels = np.repeat(bunch.images[..., None].astype(np.uint8), CHANNELS, axis=3)
    names = [f"{row:04d}" for row in range(len(labels))]
    hashes = [content_hash(image.tobytes().hex()) for image in pixels]
    splits = stratified_split(labels, _fractions(config), rng(context.seed, "data/split"))
    parts = {
        split: Photos(pixels, rows, labels[rows], names, hashes)
        for split, rows in zip(SPLITS, splits, strict=True)
    }
    folder = _folder() / FILE
    return FoundPhotos(folder, tuple(map(str, range(CLASSES))), parts, {})


def _data(config: Config, context: DatasetContext, found: FoundPhotos) -> DataModule:
    import torch

    from hwnas.training.augment import Warper
    from hwnas.training.data import MemoryData

    grey = found.parts["train"].pixels[..., 0]
    images = torch.from_numpy(grey).float()[:, None] / 16
    images = torch.nn.functional.interpolate(
        images, size=(config.base_px, config.base_px), mode="bicubic", align_corners=False
    ).clamp_(0, 1)
    parts = {
        split: (images[of.rows].expand(-1, CHANNELS, -1, -1), torch.from_numpy(of.labels))
        for split, of in found.parts.items()
    }
    train = images[found.parts["train"].rows]
    mean, clean_std = float(train.mean()), float(train.std())
    std = math.hypot(clean_std, config.noise_std)
    info = DataInfo(
        name="digits",
        class_names=found.names,
        mean=(mean,) * CHANNELS,
        std=(std,) * CHANNELS,
        base_px=config.base_px,
        n_images={split: len(y) for split, (_, y) in parts.items()},
        digests=identity(config).digests,
    )
    warper = Warper(**config.augment.model_dump())
    return MemoryData(info, parts, warper, context.seed, config.noise_std)
