"""Data sets held in memory: stratified splits, seeded order, augmentation per batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch

from hwnas.core.errors import UserError
from hwnas.core.rng import rng
from hwnas.interfaces import DataInfo, DataModule, Split
from hwnas.training.augment import Warper
from hwnas.training.images import normalise

__all__ = [
    "Batch",
    "MemoryData",
    "batches_from",
    "part_of_batch",
    "placed",
    "require_train_images",
]

Batch = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class MemoryData:
    """An `interfaces.DataModule` of images in memory, without workers.

    parts: per split, images float32 [N, C, base_px, base_px] in [0, 1] and labels int64 [N].
    noise_std: standard deviation of Gaussian noise on all images, equal in all channels. It is new
        in every training epoch, and fixed in evaluation.
    """

    info: DataInfo
    parts: Mapping[Split, Batch]
    warper: Warper
    seed: int
    noise_std: float = 0.0

    def train_batches(
        self, epoch: int, batch_size: int, *, rank: int = 0, n_ranks: int = 1
    ) -> Iterator[Batch]:
        """Augmented training batches in an order fixed by (seed, epoch); drops a partial last one.

        Each batch is split into `n_ranks` equal parts, and part `rank` is returned.

        Raises:
            UserError: there are fewer training images than one batch.
        """
        images, labels = self.parts["train"]
        require_train_images(self.info, batch_size, key="batch_size")
        part = part_of_batch(batch_size, rank, n_ranks)
        order = rng(self.seed, "data/order", epoch).permutation(len(labels))
        draws = self.warper.draw(len(labels), seed=self.seed, epoch=epoch)
        noise = self._noise("train", epoch)

        def batches() -> Iterator[Batch]:
            for start in range(0, len(labels) - batch_size + 1, batch_size):
                rows = order[start : start + batch_size][part]
                x = self.warper(images[rows], draws[rows])
                yield self._normalise(x + noise[rows]), labels[rows]

        return batches()

    def eval_batches(self, split: Split, batch_size: int) -> Iterator[Batch]:
        """All images of a split in fixed order, without augmentation."""
        images, labels = self._as_seen(split)
        for x, y in zip(torch.split(images, batch_size), torch.split(labels, batch_size)):
            yield self._normalise(x), y

    def calibration_batches(self, n_batches: int, batch_size: int) -> list[torch.Tensor]:
        """A fixed, seeded sample of TRAINING images, not augmented, for BN and INT8 calibration.

        Raises:
            UserError: there are too few training images.
        """
        images, _ = self._as_seen("train")
        n = n_batches * batch_size
        require_train_images(self.info, n, key="calibration: n_batches * batch_size")
        rows = rng(self.seed, "data/calibration").permutation(len(images))[:n]
        return [self._normalise(x) for x in torch.split(images[rows], batch_size)]

    def _as_seen(self, split: Split) -> Batch:
        """Images of a split with their noise, and labels."""
        images, labels = self.parts[split]
        return images + self._noise(split), labels

    def _noise(self, split: Split, *stream: int) -> torch.Tensor:
        """Noise [N, 1, base_px, base_px]; without noise, one 0 per image."""
        n, px = len(self.parts[split][1]), self.info.base_px
        if not self.noise_std:
            return torch.zeros(n, 1, 1, 1)
        random = rng(self.seed, "data/noise", split, *stream)
        noise = random.standard_normal((n, 1, px, px), dtype=np.float32)
        return torch.from_numpy(noise) * self.noise_std

    def _normalise(self, x: torch.Tensor) -> torch.Tensor:
        return normalise(x, self.info.mean, self.info.std)


def require_train_images(info: DataInfo, n: int, *, key: str) -> None:
    """Refuses a setting `key` that needs more training images than there are.

    Raises:
        UserError: there are fewer than n.
    """
    found = info.n_images["train"]
    if n > found:
        raise UserError(
            f"data set {info.name!r} is too small for {key} = {n}",
            expected=f"at least {n} training images",
            found=found,
            fix=f"lower {key}",
        )


def part_of_batch(batch_size: int, rank: int, n_ranks: int) -> slice:
    """Rows of a batch for one rank.

    Raises:
        UserError: the batch does not split into equal parts of at least two images, which BN needs.
    """
    size, rest = divmod(batch_size, n_ranks)
    if n_ranks > 1 and (rest or size < 2):
        raise UserError(
            "a batch does not divide evenly among the processes",
            expected=f"a multiple of {n_ranks}, the number of processes, and at least 2 images per"
            " process",
            found=f"batch_size {batch_size}",
            fix=f"batch_size={n_ranks * max(2, size)}, or another number of processes",
        )
    return slice(rank * size, (rank + 1) * size)


def batches_from(
    data: DataModule, batch_size: int, step: int, *, rank: int = 0, n_ranks: int = 1
) -> Iterator[Batch]:
    """Endless training batches from global step `step` on, epoch after epoch.

    Each batch is split into `n_ranks` equal parts, and part `rank` is returned.
    """
    steps_per_epoch = max(1, data.info.n_images["train"] // batch_size)
    epoch, skip = divmod(step, steps_per_epoch)
    while True:
        batches = data.train_batches(epoch, batch_size, rank=rank, n_ranks=n_ranks)
        yield from islice(batches, skip, None)
        epoch, skip = epoch + 1, 0


def placed(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """Moves batches to `device`."""
    for x, y in batches:
        yield x.to(device, non_blocking=True), y.to(device, non_blocking=True)
