"""Sections of supernet training that are off by default. Torch-free."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from hwnas.core.config import StrictModel, variant
from hwnas.nets.proxies import REGISTRY as PROXIES

__all__ = ["AverageConfig", "Count", "RankingConfig", "TeacherConfig"]

Count = Annotated[int, Field(ge=1)]


class RankingConfig(StrictModel):
    """Ranking loss on pairs of archs in every step (PGONAS 2206.13329).

    A prior says which arch of a pair should have the lower loss. A pair costs two forward passes.
    """

    pairs: Count = 2
    """Pairs of archs per step in an additional ranking loss (PGONAS 2206.13329), off by default;
    `train.ranking: {}` turns it on. A pair costs two forward passes.
    """
    prior: variant(PROXIES) = Field(default={"name": "macs"}, validate_default=True)  # type: ignore[valid-type]
    """Proxy that predicts which arch of a pair has the lower loss; see `hwnas list proxies`."""
    gradient: Literal["better", "both"] = "better"
    """Gradient of the ranking loss: `better` lowers the loss of the arch that should be better;
    `both` also raises the loss of the other.
    """
    schedule: Literal["constant", "warmup", "sine", "trapezoid"] = "warmup"
    """Schedule of the weight of the ranking loss. `constant`: always `peak`; `warmup`: the weight
    rises from 0 to `peak` and stays; `trapezoid`: it also falls to 0 at the end; `sine`: half a
    sine wave from 0 over `peak` to 0.
    """
    peak: float = Field(default=2.0, gt=0)
    """Largest weight of the ranking loss."""
    ramp: float = Field(default=0.2857, gt=0, le=1)
    """Share of the steps in which the weight of the ranking loss rises from 0 to `peak`, with
    `warmup` and `trapezoid`. With `trapezoid`, it falls during the same share at the end.
    """
    min_distance: Count = 1
    """Minimum number of choices in which the archs of a ranking pair differ, if there are such
    archs.
    """


class TeacherConfig(StrictModel):
    """A trained timm model as a teacher besides the labels: (1 - w) * labels + w * its logits."""

    model: str
    """Name of a timm model that is the teacher, in addition to the labels (from
    timm.list_models()). By default there is no such teacher.
    """
    weights: Path
    """File with the weights of the teacher, .safetensors or .npz; nothing is downloaded."""
    px: Count | None = None
    """Resolution of the images of the teacher in px; null: the resolution of the data."""
    weight: float = Field(default=0.5, ge=0, le=1)
    """Weight w of the teacher in the loss, (1 - w) * labels + w * teacher."""
    normalisation: Literal["data", "timm"] = "data"
    """Mean and standard deviation with which images of the teacher are normalised: those of the
    data set (`data`), or those of the model in timm.
    """


class AverageConfig(StrictModel):
    """Exponential moving average of the weights, which is used for scoring and export."""

    decay: float = Field(default=0.998, gt=0, lt=1)
    """Decay per step of a moving average of the weights, which is then scored and exported. Off by
    default; `train.ema: {}` turns it on.
    """
    warmup: bool = True
    """Whether the moving average has a lower decay at first (timm's ModelEmaV3)."""
