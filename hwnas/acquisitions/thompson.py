"""The largest random draw: for each arch, one draw from its predicted distribution of scores."""

from __future__ import annotations

from typing import Literal

from hwnas.core.config import StrictModel
from hwnas.interfaces import Acquisition, FloatArray, Prospects

__all__ = ["Config", "build"]


class Config(StrictModel):
    """No parameters.

    The draws for different archs are independent, as in BANANAS (White et al. 1910.11858,
    independent Thompson sampling).
    """

    name: Literal["thompson"] = "thompson"


def build(config: Config) -> Acquisition:
    """An acquisition that draws the score of every arch again at each call, so batches differ."""
    return _draw


def _draw(prospects: Prospects) -> FloatArray:
    noise = prospects.stream.standard_normal(len(prospects.mean))
    return prospects.mean + prospects.std * noise
