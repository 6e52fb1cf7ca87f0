"""Makes the weights that ship with hwnas: 8-bit codes as published, and the statistics of BN.

    python benchmarks/shipped_weights.py $DATA/weights_mobilenet_int8/NAME.npz IMAGES.npz

IMAGES.npz has JPEG photos end to end (`jpeg`, `offset`); the central 87.5 % of each are used. The
statistics are means and variances over photos of what enters every BN, 8 bytes per channel.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from hwnas.core.arrays import read_npz
from hwnas.core.store import read_json, write_bytes
from hwnas.nets.folded import read_folded
from hwnas.nets.unfold import unfold
from hwnas.spaces.load import build_space

SHIPPED = Path(__file__).parents[1] / "hwnas" / "nets" / "shipped"
BATCH = 20


def photos(path: Path, px: int) -> Iterator[torch.Tensor]:
    """Batches of central crops, [n, 3, px, px] in [0, 1]."""
    arrays = read_npz(path)
    jpeg, ends = arrays["jpeg"], arrays["offset"]
    batch = []
    for begin, end in pairwise(ends):
        image = Image.open(io.BytesIO(jpeg[begin:end].tobytes())).convert("RGB")
        edge = 0.875 * min(image.size)
        left, top = ((side - edge) / 2 for side in image.size)
        box = (left, top, left + edge, top + edge)
        image = image.resize((px, px), Image.Resampling.BICUBIC, box=box)
        batch.append(torch.from_numpy(np.asarray(image).copy()).movedim(2, 0).float() / 255)
        if len(batch) == BATCH:
            yield torch.stack(batch)
            batch = []


def main(weights: Path, images: Path, model: str = "mobilenetv2_100") -> None:
    """Write `shipped/NAME.npz` and `.json`."""
    network = read_folded(weights)
    space = build_space("timm", {"model": model, "pad_mode": "tf_same"}, num_classes=1000)
    state = unfold(network, space, photos(images, network.px))
    arrays = read_npz(weights)
    numbers = [
        layer["layer"]
        for layer in read_json(weights.with_suffix(".json"))["layers"]
        if f"{layer['layer']}.weight" in arrays
    ]
    means = [name for name in state if name.endswith(".running_mean")]
    for number, mean in zip(numbers, means):
        arrays[f"{number}.mean"] = state[mean].numpy()
        arrays[f"{number}.var"] = state[mean.replace("mean", "var")].numpy()
    packed = io.BytesIO()
    np.savez_compressed(packed, **arrays)
    write_bytes(SHIPPED / weights.name, packed.getvalue())
    write_bytes(SHIPPED / f"{weights.stem}.json", weights.with_suffix(".json").read_bytes())
    assert read_folded(SHIPPED / weights.name).has_statistics


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*map(Path, sys.argv[1:3]))
