"""The largest predicted score."""

from __future__ import annotations

from typing import Literal

from hwnas.core.config import StrictModel
from hwnas.interfaces import Acquisition, FloatArray, Prospects

__all__ = ["Config", "build"]


class Config(StrictModel):
    """No parameters."""

    name: Literal["mean"] = "mean"


def build(config: Config) -> Acquisition:
    """An acquisition that prefers the archs with the highest predicted scores."""
    return _mean


def _mean(prospects: Prospects) -> FloatArray:
    return prospects.mean
