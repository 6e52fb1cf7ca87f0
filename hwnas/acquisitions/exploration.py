"""The largest upper confidence bound: predicted score plus a multiple of its deviation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hwnas.core.config import LATER, StrictModel
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
    uncertain_every: Annotated[
        int | None,
        Field(
            ge=2,
            le=1000,
            description="Every n-th evaluation goes to the arch with the largest predicted"
            " deviation; null: none does.",
        ),
        LATER,
    ] = None


def build(config: Config) -> Acquisition:
    """An acquisition that prefers uncertain archs among archs of equal predicted score.

    A predictor that is wrong and too certain never evaluates the archs that would correct it. With
    `uncertain_every`, some evaluations are spent on such archs (measured in docs/search.md).
    """
    every = config.uncertain_every

    def bound(prospects: Prospects) -> FloatArray:
        if every is not None and len(prospects.known) % every == 0:
            return prospects.std
        return prospects.mean + config.weight * prospects.std

    return bound
