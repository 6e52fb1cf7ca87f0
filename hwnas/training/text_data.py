"""The data module of language models: windows of tokens, with the next token of each token."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hwnas.core.rng import rng
from hwnas.interfaces import DataInfo, Split
from hwnas.training.data import Batch, part_of_batch, require_train_images
from hwnas.training.text import windows

if TYPE_CHECKING:
    import torch

__all__ = ["TextData"]


@dataclass(frozen=True)
class TextData:
    """An `interfaces.DataModule` whose batches are tokens [B, S, L] and next tokens [B, L].

    A window is `S` consecutive segments of `L` tokens. Next tokens are given for the last segment;
    the others only set the state of the network. An "image" of `DataInfo` is one window.

    tokens: per split, int64 [n], numbers in the vocabulary `info.class_names`.
    n_segments, n_steps: S and L.
    """

    info: DataInfo
    tokens: Mapping[Split, NDArray[np.int64]]
    seed: int
    n_segments: int
    n_steps: int

    def train_batches(
        self, epoch: int, batch_size: int, *, rank: int = 0, n_ranks: int = 1
    ) -> Iterator[Batch]:
        """Windows in an order fixed by (seed, epoch), all shifted by a random number of tokens.

        Each batch is split into `n_ranks` equal parts, and part `rank` is returned.

        Raises:
            UserError: there are fewer windows than one batch.
        """
        require_train_images(self.info, batch_size, key="batch_size")
        part = part_of_batch(batch_size, rank, n_ranks)
        random = rng(self.seed, "data/order", epoch)
        shift = int(random.integers(self.n_steps))
        order = random.permutation(self.info.n_images["train"]) * self.n_steps + shift

        def batches() -> Iterator[Batch]:
            for start in range(0, len(order) - batch_size + 1, batch_size):
                yield self._batch("train", order[start : start + batch_size][part])

        return batches()

    def eval_batches(self, split: Split, batch_size: int) -> Iterator[Batch]:
        """All windows of a split in order."""
        starts = np.arange(self.info.n_images[split]) * self.n_steps
        for first in range(0, len(starts), batch_size):
            yield self._batch(split, starts[first : first + batch_size])

    def calibration_batches(self, n_batches: int, batch_size: int) -> list[torch.Tensor]:
        """A fixed, seeded sample of windows of the training text.

        Raises:
            UserError: there are too few windows.
        """
        n = n_batches * batch_size
        require_train_images(self.info, n, key="calibration: n_batches * batch_size")
        drawn = rng(self.seed, "data/calibration").permutation(self.info.n_images["train"])[:n]
        return [
            self._batch("train", rows * self.n_steps)[0]
            for rows in drawn.reshape(n_batches, batch_size)
        ]

    def _batch(self, split: Split, starts: NDArray[np.int64]) -> Batch:
        import torch

        x, y = windows(self.tokens[split], starts, self.n_segments, self.n_steps)
        return torch.from_numpy(x.copy()), torch.from_numpy(y.copy())
