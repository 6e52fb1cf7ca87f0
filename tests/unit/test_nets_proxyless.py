"""Published ProxylessNAS networks: real weights, real photos, the accuracy others measured."""

from __future__ import annotations

import io
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from hwnas.core.errors import UserError
from hwnas.nets.proxyless_weights import read_proxyless
from hwnas.nets.subnet import definition_of

NAMES = ("proxyless-w0.3-r176", "proxyless-w0.25-r112")


@pytest.fixture(scope="module")
def photos(test_data: Path) -> tuple[list[Image.Image], NDArray[np.int16]]:
    """500 photos, one per ImageNet class, and their labels."""
    data = np.load(test_data / "imagenet_samples" / "samples.npz", allow_pickle=False)
    jpeg, offset = data["jpeg"], data["offset"]
    files = [jpeg[i:j].tobytes() for i, j in pairwise(offset)]
    return [Image.open(io.BytesIO(file)).convert("RGB") for file in files], data["label"]


def pixels(photo: Image.Image, px: int) -> NDArray[np.float32]:
    """The central 87.5 % of the short side at [px, px, 3], in [-1, 1]."""
    width, height = photo.size
    edge = 0.875 * min(photo.size)
    left, top = (width - edge) / 2, (height - edge) / 2
    box = (left, top, left + edge, top + edge)
    crop = photo.resize((px, px), Image.Resampling.BICUBIC, box=box)
    return np.asarray(crop, dtype=np.float32) / 127.5 - 1


@pytest.mark.parametrize(
    ("name", "params", "top1", "top5"),
    [(NAMES[0], 754_280, 310, 428), (NAMES[1], 569_600, 260, 378)],
)
def test_published_weights_reach_their_published_accuracy(
    test_data: Path,
    photos: tuple[list[Image.Image], NDArray[np.int16]],
    name: str,
    params: int,
    top1: int,
    top5: int,
) -> None:
    """Of 500: 62.0 / 85.6 % and 52.0 / 75.6 %, an oracle for lowering, padding, preprocessing."""
    model = read_proxyless(*files(test_data, name))
    assert sum(parameter.numel() for parameter in model.parameters()) == params
    px = definition_of(model)["resolution"]
    images, labels = photos
    x = torch.from_numpy(np.stack([pixels(image, px) for image in images])).movedim(3, 1)
    with torch.inference_mode():
        logits = torch.cat([model(part) for part in x.split(50)])
    hits = (logits.topk(5).indices == torch.from_numpy(labels)[:, None]).numpy()
    assert (int(hits[:, 0].sum()), int(hits.sum())) == (top1, top5)


def test_files_that_are_not_of_one_network_are_refused(test_data: Path, tmp_path: Path) -> None:
    description, weights = files(test_data, NAMES[0])
    _, other = files(test_data, NAMES[1])
    with pytest.raises(UserError, match="do not fit"):
        read_proxyless(description, other)
    with pytest.raises(UserError, match="do not fit"):
        read_proxyless(description, description)
    data = json.loads(description.read_text())
    broken = tmp_path / "broken.json"
    for change in ({"blocks": data["blocks"][:-1]}, {"blocks": 3}, {"bn": {}}):
        broken.write_text(json.dumps(data | change))
        with pytest.raises(UserError, match="not a layer list") as caught:
            read_proxyless(broken, weights)
        assert caught.value.expected and caught.value.found and caught.value.fix
    assert caught.value.found == "no key 'eps'"


def files(test_data: Path, name: str) -> tuple[Path, Path]:
    folder = test_data / "weights_proxyless_tiny"
    return folder / f"{name}_imagenet.json", folder / f"{name}_imagenet.npz"
