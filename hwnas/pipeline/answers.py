"""Predictions of each device's network on the test images, and some of these images.

Stage `verify` runs the networks and stores the predictions; the report shows them. Run folders of
earlier versions have no such file.
"""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from hwnas.core.errors import Invalid
from hwnas.core.records import STRICT, Count, Share
from hwnas.exporters.samples import denormalise
from hwnas.interfaces import DataInfo, Images
from hwnas.spaces.arch import Arch

__all__ = ["Answered", "Answers", "Photo", "Replies", "answers_of", "replies_of"]

N_PHOTOS = 8  # photos of each kind
PX = 72  # maximum size of a stored image
CHANNELS = 1, 3  # numbers of channels that can be shown


@dataclass(frozen=True)
class Replies:
    """The predicted class of n images, and its softmax probability, both [n]."""

    predicted: NDArray[np.int64]
    confidence: NDArray[np.float64]


def replies_of(logits: Images) -> Replies:
    """Predicted classes and their probabilities, from logits [n, classes]."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    odds = np.exp(shifted)
    return Replies(logits.argmax(axis=1), odds.max(axis=1) / odds.sum(axis=1))


@dataclass(frozen=True)
class Photo:
    """A small test image (JPEG in base64), its class, and the predicted class with its softmax."""

    __pydantic_config__: ClassVar[Any] = STRICT

    jpeg: Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]*={0,2}$", max_length=100_000)]
    label: Count
    predicted: Count
    confidence: Share


@dataclass(frozen=True)
class Answered:
    """Predictions of one device's network on the test images.

    file: path in the bundle of the file that was run.
    confusion: `confusion[i][j]` test images of class i are predicted as class j.
    right, wrong: some correctly and some wrongly classified images.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    device: str
    arch: Arch
    file: str
    confusion: tuple[tuple[Count, ...], ...]
    right: tuple[Photo, ...]
    wrong: tuple[Photo, ...]

    def __post_init__(self) -> None:
        n = len(self.confusion)
        if any(len(row) != n for row in self.confusion):
            other = next(len(row) for row in self.confusion if len(row) != n)
            square = f"{n} rows of {n} numbers, one row and one column for each class"
            raise Invalid(square, f"a row of {other} numbers", "confusion")
        most = max((max(p.label, p.predicted) for p in (*self.right, *self.wrong)), default=-1)
        if most >= n:
            raise Invalid(f"class numbers from 0 to {n - 1}", f"the class number {most}", "photos")


@dataclass(frozen=True)
class Answers:
    """The predictions of every device's network, in the order of the devices."""

    __pydantic_config__: ClassVar[Any] = STRICT

    devices: tuple[Answered, ...]


def answers_of(
    info: DataInfo,
    test: tuple[Images, NDArray[np.int64]],
    replies: Replies,
    *,
    device: str,
    arch: Arch,
    file: str,
) -> Answered:
    """Summarises predictions for the images and labels in `test`, [n, C, H, W] and [n]."""
    x, labels = test
    confusion = np.zeros((info.num_classes, info.num_classes), dtype=np.int64)
    np.add.at(confusion, (labels, replies.predicted), 1)
    is_right = labels == replies.predicted

    def photos(rows: Sequence[int]) -> tuple[Photo, ...]:
        if x.shape[1] not in CHANNELS:
            return ()
        pixels = denormalise(x[rows], info.mean, info.std)
        columns = labels, replies.predicted, replies.confidence.clip(0, 1)
        said = zip(pixels, *(column[rows].tolist() for column in columns), strict=True)
        return tuple(Photo(_jpeg(image), *facts) for image, *facts in said)

    return Answered(
        device=device,
        arch=arch,
        file=file,
        confusion=tuple(map(tuple, confusion.tolist())),
        right=photos(_of_every_class(labels, is_right)),
        wrong=photos(_of_every_class(labels, ~is_right)),
    )


def _of_every_class(labels: NDArray[np.int64], chosen: NDArray[np.bool_]) -> list[int]:
    """Rows of at most `N_PHOTOS` chosen images: the first of every class, then the second, ..."""
    seen: Counter[int] = Counter()
    found = []
    for row in np.flatnonzero(chosen).tolist():
        seen[int(labels[row])] += 1
        found.append((seen[int(labels[row])], row))
    return [row for _, row in sorted(found)[:N_PHOTOS]]


def _jpeg(pixels: NDArray[np.uint8]) -> str:
    """Base64 of a JPEG of pixels [H, W, C], at most `PX` wide and high."""
    from PIL import Image

    stream, is_grey = io.BytesIO(), pixels.shape[2] == 1
    image = Image.fromarray(pixels[:, :, 0] if is_grey else pixels)
    image.thumbnail((PX, PX))
    image.save(stream, format="JPEG", quality=80)
    return base64.b64encode(stream.getvalue()).decode("ascii")
