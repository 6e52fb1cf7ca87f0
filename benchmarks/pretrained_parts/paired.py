"""Paired comparisons of networks on the same test images, over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hwnas.interfaces import DataModule
from hwnas.training.images import resize

EVAL_BATCH = 128
N_BOOTSTRAP = 10_000

Hits = NDArray[np.float64]
"""Of each test image [n], whether a network is right; or the share of several networks."""


@dataclass(frozen=True)
class Difference:
    """Mean difference of two accuracies in points, and its bootstrap interval at `level`."""

    points: float
    low: float
    high: float
    level: float

    @property
    def is_above(self) -> bool:
        """Significantly above 0."""
        return self.low > 0

    @property
    def is_below(self) -> bool:
        """Significantly below 0."""
        return self.high < 0

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {key: round(value, 3) for key, value in asdict(self).items()}


def hits(model: torch.nn.Module, data: DataModule, px: int) -> Hits:
    """Whether an eval-mode network is right on each test image."""
    found = []
    with torch.no_grad():
        for x, y in data.eval_batches("test", EVAL_BATCH):
            found.append(model(resize(x, px)).argmax(1) == y)
    return torch.cat(found).double().numpy()


def paired(
    ours: Sequence[Sequence[Hits]], theirs: Sequence[Sequence[Hits]], *, level: float, seed: int = 0
) -> Difference:
    """Ours minus theirs: mean over data sets of the mean over seeds and images.

    ours, theirs: by data set, by seed. Seeds and images of each data set are drawn anew with
    replacement, the same ones for both sides.
    """
    random = np.random.default_rng(seed)
    resampled, points = np.zeros(N_BOOTSTRAP), 0.0
    for one, other in zip(ours, theirs, strict=True):
        difference = 100 * (np.stack(one) - np.stack(other))  # [seeds, images]
        n_seeds, n_images = difference.shape
        points += difference.mean() / len(ours)
        for b in range(N_BOOTSTRAP):
            seeds = random.integers(0, n_seeds, n_seeds)
            images = random.integers(0, n_images, n_images)
            resampled[b] += difference[seeds].mean(0)[images].mean() / len(ours)
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    return Difference(float(points), float(low), float(high), level)
