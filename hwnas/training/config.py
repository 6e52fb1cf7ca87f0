"""Settings of supernet training, fine-tuning and labelling. Torch-free.

The defaults are a recipe for the digits in `mobilenet_tiny` at 16, 20 and 24 px: 75 s of one CPU
core for the supernet, 10 s for a subnet of a quarter of the largest's MACs (measured, three seeds:
inherited top1 of random subnets 0.95 .. 0.99, test top1 of fine-tuned ones 0.986 .. 1).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hwnas.core.config import StrictModel, variant
from hwnas.training.samplers import REGISTRY as SAMPLERS
from hwnas.training.samplers.sandwich import Config as Sandwich

__all__ = [
    "CalibrationConfig",
    "FinetuneConfig",
    "LabelConfig",
    "OptimizerConfig",
    "SupernetConfig",
    "TrainConfig",
]

Fraction = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]


class OptimizerConfig(StrictModel):
    """An optimiser of timm with linear warm-up and one cosine down to `min_lr`, per step."""

    name: str = Field(default="adamw", description="a name of timm.optim.list_optimizers()")
    lr: float = Field(
        default=2e-2, gt=0, description="peak learning rate, of the batch size as it is"
    )
    min_lr: float = Field(default=0.0, ge=0, description="learning rate at the end of the cosine")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="where the optimiser has one")
    weight_decay: float = Field(default=1e-2, ge=0, description="not on biases and BN parameters")
    warmup: Fraction = Field(
        default=0.05, description="share of the steps that ramp up from lr / 100"
    )
    clip_norm: float | None = Field(default=1.0, gt=0, description="largest global gradient norm")


class CalibrationConfig(StrictModel):
    """Training images, not augmented, that BN statistics are computed from."""

    n_batches: Count = 1
    batch_size: Annotated[int, Field(ge=2)] = Field(default=128, description="images per batch")


class SupernetConfig(StrictModel):
    """Which weights archs share, and where they start."""

    weak_sharing: bool = Field(
        default=False, description="a hypernetwork fits the shared weights to every arch (WPNAS)"
    )
    kernel_transform: bool = Field(
        default=True, description="small kernels are learned maps of larger ones, not their centres"
    )
    share_ops: bool = Field(
        default=False, description="operators that a block chooses between share slices"
    )
    init: str | None = Field(
        default=None,
        description="path of a .safetensors or .npz to start from: a supernet of the same space,"
        " or a trained largest subnet, whose channels are then sorted by importance",
    )


class TrainConfig(StrictModel):
    """Supernet training by the sandwich rule with in-place distillation (BigNAS 2003.11142)."""

    steps: Count = Field(
        default=280, description="optimiser steps; each runs every arch of the sampler"
    )
    batch_size: Annotated[int, Field(ge=2)] = 32
    sampler: variant(SAMPLERS) = Field(default=Sandwich(), description="which archs a step runs")  # type: ignore[valid-type]
    optimizer: OptimizerConfig = OptimizerConfig()
    label_smoothing: Fraction = Field(default=0.1, description="on the largest only")
    dropout: Fraction = Field(default=0.0, description="before the classifier of the largest")
    drop_path: Fraction = Field(default=0.0, description="on the residual branches of the largest")
    temperature: float = Field(default=1.0, gt=0, description="of the distillation's softmaxes")
    calibration: CalibrationConfig = Field(
        default=CalibrationConfig(), description="for the curves"
    )
    curve_every: Count = Field(
        default=70, description="steps between two points of the three curves"
    )
    curve_images: Count = Field(default=512, description="validation images of a point, at most")
    checkpoint_every: Count = Field(default=70, description="steps between two checkpoints")


class FinetuneConfig(StrictModel):
    """Training of one extracted subnet: (1 - w) * labels + w * the largest's logits."""

    epochs: Annotated[int, Field(ge=0)] = Field(
        default=6, description="passes over the training images"
    )
    batch_size: Annotated[int, Field(ge=2)] = 64
    optimizer: OptimizerConfig = OptimizerConfig(lr=2e-3)
    label_smoothing: Fraction = 0.1
    distillation: float = Field(default=0.5, ge=0, le=1, description="w, the weight of the teacher")
    temperature: float = Field(default=1.0, gt=0, description="of the distillation's softmaxes")
    calibration: CalibrationConfig = CalibrationConfig()


class LabelConfig(StrictModel):
    """Scores of sampled subnets, which the accuracy predictor learns from."""

    n_archs: Count = Field(default=250, description="archs that get a label")
    source: Literal["supernet"] = Field(
        default="supernet", description="weights that the labels come from"
    )
    calibration: CalibrationConfig = CalibrationConfig()
