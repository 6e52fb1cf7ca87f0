"""Sample images of a bundle, in formats that need no library: .ppm, .pgm, .npy."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwnas.exporters.manifest import SampleFile

__all__ = ["SampleImage", "denormalise", "npy", "sample_files"]

Pixels = NDArray[np.uint8]
MAGIC = {1: ("pgm", b"P5"), 3: ("ppm", b"P6")}  # binary netpbm, by number of channels


@dataclass(frozen=True)
class SampleImage:
    """A sample image: pixels uint8 [H, W, C], its class, and the class that torch predicts."""

    pixels: Pixels
    label: int
    predicted: int


def denormalise(x: NDArray[np.float32], mean: Sequence[float], std: Sequence[float]) -> Pixels:
    """Normalised images [n, C, H, W] to the nearest 8-bit pixels [n, H, W, C]."""
    pixels = x.transpose(0, 2, 3, 1).astype(np.float64) * np.asarray(std) + np.asarray(mean)
    rounded: Pixels = np.rint(pixels * 255).clip(0, 255).astype(np.uint8)
    return rounded


def sample_files(
    samples: Sequence[SampleImage], class_names: Sequence[str]
) -> Iterator[tuple[SampleFile, bytes]]:
    """Manifest entry and file content of every sample."""
    for number, sample in enumerate(samples):
        suffix, content = _encode(sample.pixels)
        name = re.sub(r"[^A-Za-z0-9]+", "-", class_names[sample.label])[:24].strip("-")
        path = f"samples/{number:02d}-{name}.{suffix}"
        yield SampleFile(path, int(sample.label), int(sample.predicted)), content


def _encode(pixels: Pixels) -> tuple[str, bytes]:
    """Suffix and content of an image file."""
    height, width, channels = pixels.shape
    if channels not in MAGIC:
        return "npy", npy(pixels)
    suffix, magic = MAGIC[channels]
    return suffix, b"%s\n%d %d\n255\n" % (magic, width, height) + pixels.tobytes()


def npy(array: NDArray[np.float32] | Pixels) -> bytes:
    """An array as the content of a .npy file."""
    stream = io.BytesIO()
    np.save(stream, np.ascontiguousarray(array), allow_pickle=False)
    return stream.getvalue()
