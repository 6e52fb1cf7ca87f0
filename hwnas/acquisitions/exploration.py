"""The largest upper confidence bound: predicted score plus a multiple of its deviation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hwnas.core.config import StrictModel
from hwnas.interfaces import Acquisition, FloatArray, Prospects

__all__ = ["Config", "build"]


class Config(StrictModel):
    """The weight of the predicted deviation (GP-UCB, Srinivas et al. 0912.3995)."""

    name: Literal["exploration"] = "exploration"
    weight: Annotated[
        float,
        Field(
            ge=0,
            le=100,
            description="Number of predicted standard deviations that are added to the predicted"
            " score; more than 0 favours uncertain archs.",
        ),
    ] = 1.0


def build(config: Config) -> Acquisition:
    """An acquisition that prefers uncertain archs among archs of equal predicted score."""

    def bound(prospects: Prospects) -> FloatArray:
        return prospects.mean + config.weight * prospects.std

    return bound
