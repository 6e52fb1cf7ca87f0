"""Published networks keep their published accuracy through every format."""

from __future__ import annotations

import io
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from hwnas.exporters import REGISTRY
from hwnas.exporters.formats import exporter
from hwnas.exporters.opened import CannotRunHere
from hwnas.nets.proxyless_weights import read_proxyless
from hwnas.nets.subnet import definition_of

N = 500
MOST_LOST = {"fp32": 0, "fp16": 3, "int8": 15}  # images; int8: 3 points
FORMATS = ("onnx", "fp16", "int8", "ort", "pt2", "timm", "tensorrt_rtx")


def pixels(photo: Image.Image, px: int) -> NDArray[np.float32]:
    """The central 87.5 % of the short side at [px, px, 3], in [-1, 1]."""
    width, height = photo.size
    edge = 0.875 * min(photo.size)
    left, top = (width - edge) / 2, (height - edge) / 2
    box = (left, top, left + edge, top + edge)
    crop = photo.resize((px, px), Image.Resampling.BICUBIC, box=box)
    return np.asarray(crop, dtype=np.float32) / 127.5 - 1


def photos(test_data: Path, px: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    data = np.load(test_data / "imagenet_samples" / "samples.npz", allow_pickle=False)
    files = [data["jpeg"][i:j].tobytes() for i, j in pairwise(data["offset"])]
    x = np.stack([pixels(Image.open(io.BytesIO(f)).convert("RGB"), px) for f in files])
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2)), data["label"].astype(np.int64)


@pytest.mark.full
@pytest.mark.parametrize(
    ("name", "hits"), [("proxyless-w0.3-r176", 310), ("proxyless-w0.25-r112", 260)]
)
def test_published_accuracy_survives_every_format(
    name: str, hits: int, test_data: Path, tmp_path: Path
) -> None:
    """62.0 and 52.0 % of 500 photos: fp32 to the image, int8 within 3 points."""
    folder = test_data / "weights_proxyless_tiny"
    model: nn.Module = read_proxyless(
        folder / f"{name}_imagenet.json", folder / f"{name}_imagenet.npz"
    )
    px = definition_of(model)["resolution"]
    images, labels = photos(test_data, px)
    assert len(labels) == N
    for format in FORMATS:
        if REGISTRY.describe(format).missing:
            print(f"{format}: not installed, left out")
            continue
        settings = {"capability": "8.9"} if format == "tensorrt_rtx" else {}
        one = exporter(format, **settings)
        files = one.export(model, input_shape=(3, px, px), folder=tmp_path, images=images)
        precision = one.describe(files).precision
        try:
            found = one.open_model(files[0]).logits(images, 16).argmax(1)
        except CannotRunHere:
            continue
        lost = hits - int((found == labels).sum())
        print(f"{name} {format}: {(hits - lost) / N:.1%}, {files[0].stat().st_size} bytes")
        assert lost == 0 if precision == "fp32" else lost <= MOST_LOST[precision]
