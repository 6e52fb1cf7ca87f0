"""ImageNet accuracies that timm publishes for its weights."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

__all__ = ["Published", "published"]

_FILE = Path(__file__).parent / "timm_results.csv"


@dataclass(frozen=True)
class Published:
    """One row of timm's results: ImageNet top-1 in [0, 1] at `px`, and parameters in millions."""

    weights: str
    px: int
    top1: float
    params_millions: float


def published(weights: str) -> tuple[Published, ...]:
    """Published results of weights, by ascending resolution; empty if there are none.

    Source: results-imagenet.csv of pytorch-image-models (Apache-2.0), networks of at most 12
    million parameters.
    """
    return _table().get(weights, ())


@lru_cache(maxsize=1)
def _table() -> dict[str, tuple[Published, ...]]:
    with open(_FILE, encoding="utf-8") as stream:
        lines = [line for line in stream if not line.startswith("#")]
    found: dict[str, tuple[Published, ...]] = {}
    for row in csv.DictReader(lines):
        one = Published(
            row["weights"],
            int(row["px"]),
            round(float(row["top1"]) / 100, 6),
            float(row["params_millions"]),
        )
        found[one.weights] = (*found.get(one.weights, ()), one)
    return found
