"""Trains small supernets and saves their weights: alone, or as one of torchrun's processes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch
from safetensors.torch import save_file

from hwnas.interfaces import DatasetContext
from hwnas.nets.supernet import Supernet
from hwnas.spaces import mobilenet_tiny
from hwnas.training.datasets import digits
from hwnas.training.distributed import Ranks, join
from hwnas.training.loop import train_supernet
from hwnas.training.sections import CalibrationConfig, OptimizerConfig, TrainConfig

CASES: dict[str, tuple[torch.dtype, int, dict]] = {
    "float32": (torch.float32, 1, {}),
    "float64": (torch.float64, 6, {}),
    "new head": (torch.float64, 4, {"head_epochs": 2, "elastic_warmup": 0.5}),
}
"""Number format, steps, and changes of the recipe.

A step multiplies earlier rounding errors, up to a thousandfold.
"""


N_EVAL_BATCHES = 1  # as many features train the new head as show a difference


class Digits:
    """Images of a number format."""

    def __init__(self, dtype: torch.dtype) -> None:
        self._data, self._dtype = digits.build(digits.Config(base_px=12), DatasetContext(0)), dtype
        self.info = self._data.info

    def train_batches(self, epoch: int, batch_size: int, **part: int) -> Iterator[tuple]:
        for x, y in self._data.train_batches(epoch, batch_size, **part):
            yield x.to(self._dtype), y

    def eval_batches(self, split: str, batch_size: int) -> Iterator[tuple]:
        for x, y in islice(self._data.eval_batches(split, batch_size), N_EVAL_BATCHES):
            yield x.to(self._dtype), y

    def calibration_batches(self, n_batches: int, batch_size: int) -> list[torch.Tensor]:
        return [x.to(self._dtype) for x in self._data.calibration_batches(n_batches, batch_size)]


def train(folder: Path, case: str, *, accumulation: int, ranks: Ranks) -> list[dict]:
    """Train; rank 0 saves `weights.safetensors`. Returns the rows that this rank was given."""
    dtype, steps, changes = CASES[case]
    space = mobilenet_tiny.build(mobilenet_tiny.Config(resolutions=(8, 12)), num_classes=10)
    supernet, rows = Supernet(space, seed=0).to(dtype), []
    config = TrainConfig(
        steps=steps,
        batch_size=32,
        accumulation=accumulation,
        optimizer=OptimizerConfig(name="sgd", lr=0.05),
        curve_every=steps,
        curve_images=64,
        calibration=CalibrationConfig(n_batches=2, batch_size=64),
        **changes,
    )
    with ranks.group():
        train_supernet(
            supernet,
            Digits(dtype),
            config,
            seed=0,
            checkpoints=folder / "steps",
            on_metrics=rows.append,
            ranks=ranks,
        )
    assert bool(rows) == ranks.leads
    if ranks.leads:
        save_file(supernet.state_dict(), folder / "weights.safetensors")
    return rows


if __name__ == "__main__":
    torch.set_num_threads(1)
    together = join()
    assert together.size == 2
    for name in CASES:
        target = Path(sys.argv[1]) / name
        target.mkdir(exist_ok=True)
        train(target, name, accumulation=1, ranks=together)
