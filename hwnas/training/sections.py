"""Settings of supernet training, fine-tuning and labelling. Torch-free.

The defaults are a recipe for the digits in `mobilenet_tiny` at 16, 20 and 24 px: 75 s of one CPU
core for the supernet, 10 s for a subnet of a quarter of the largest's MACs (measured, three seeds:
inherited top1 of random subnets 0.95 .. 0.99, test top1 of fine-tuned ones 0.986 .. 1).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from hwnas.core.config import LATER, StrictModel, variant
from hwnas.nets.proxies import REGISTRY as PROXIES
from hwnas.training.samplers import REGISTRY as SAMPLERS
from hwnas.training.samplers.sandwich import Config as Sandwich

__all__ = [
    "KEEPING",
    "AverageConfig",
    "CalibrationConfig",
    "FinetuneConfig",
    "LabelConfig",
    "OptimizerConfig",
    "RankingConfig",
    "SupernetConfig",
    "TeacherConfig",
    "TrainConfig",
    "TrainedLabelConfig",
]

KEEPING = frozenset({"keep_best", "keep_last", "tensorboard"})
"""Settings of training that say what is kept of it; a finished one is not repeated for them."""

Fraction = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
MixedPrecision = Annotated[
    Literal["fp32", "bf16", "fp16"],
    LATER,
    Field(description="mixed precision on CUDA; CPUs stay with fp32"),
]

FinetunePrecision = Annotated[
    Literal["fp32", "bf16", "fp16", "int8"],
    LATER,
    Field(
        description="bf16, fp16: mixed precision on CUDA; int8: after a quarter of the steps it"
        " rounds as the file in 8 bits will (quantisation-aware training)"
    ),
]


class OptimizerConfig(StrictModel):
    """An optimiser of timm with linear warm-up and one of timm's schedules, per step."""

    name: str = Field(default="adamw", description="a name of timm.optim.list_optimizers()")
    lr: float = Field(
        default=2e-2, gt=0, description="peak learning rate, of the batch size as it is"
    )
    min_lr: float = Field(default=0.0, ge=0, description="learning rate at the end")
    schedule: Annotated[Literal["cosine", "step", "poly", "tanh", "constant"], LATER] = Field(
        default="cosine", description="of the learning rate after the warm-up"
    )
    decay_every: Annotated[float, LATER] = Field(
        default=0.3, gt=0, le=1, description="of schedule step: share of the steps between decays"
    )
    decay_rate: Annotated[float, LATER] = Field(
        default=0.1, gt=0, le=1, description="of schedule step: factor of a decay"
    )
    momentum: float = Field(default=0.9, ge=0, lt=1, description="where the optimiser has one")
    weight_decay: float = Field(default=1e-2, ge=0, description="not on biases and BN parameters")
    layer_decay: Annotated[float, LATER] = Field(
        default=1.0,
        gt=0,
        le=1,
        description="factor of the learning rate from one stage to the one before it, from the"
        " classifier to the stem; below 1 pretrained weights near the image change less",
    )
    warmup: Fraction = Field(
        default=0.05, description="share of the steps that ramp up from lr / 100"
    )
    clip_norm: float | None = Field(default=1.0, gt=0, description="largest global gradient norm")
    clip_value: Annotated[float | None, LATER] = Field(
        default=None, gt=0, description="largest absolute value in a gradient (AttentiveNAS: 1)"
    )


class CalibrationConfig(StrictModel):
    """Training images, not augmented, that BN statistics are computed from."""

    n_batches: Count = 1
    """Batches of images."""
    batch_size: Annotated[int, Field(ge=2)] = Field(default=128, description="images per batch")


class SupernetConfig(StrictModel):
    """Weight sharing and starting weights of the supernet."""

    weak_sharing: bool = Field(
        default=False, description="a hypernetwork fits the shared weights to every arch (WPNAS)"
    )
    kernel_transform: bool = True
    """small kernels are learned maps of larger ones, not their centres"""
    share_ops: bool = False
    """operators that a block chooses between share slices"""
    branches: Annotated[int, LATER, Field(ge=1, le=8)] = 1
    """depthwise kernels that train as a sum and deploy as one (re-parameterisation, 2204.00826)"""
    init: str | None = Field(
        default=None,
        description="weights to start from: the path of a supernet of the same space, also a"
        " published one, or of a network that is its largest arch, whose channels are then sorted"
        " by importance; `shipped`; or `timm:NAME` (`hwnas pretrained list`)",
    )


class RankingConfig(StrictModel):
    """Pairs of archs in every step, ordered by a prior (PGONAS 2206.13329): two passes per pair."""

    pairs: Count = Field(default=2, description="pairs per step")
    prior: variant(PROXIES) = Field(  # type: ignore[valid-type]
        default={"name": "macs"}, validate_default=True, description="which arch is better"
    )
    gradient: Literal["better", "both"] = Field(
        default="better", description="`both` also raises the loss of the worse arch"
    )
    schedule: Literal["constant", "warmup", "sine", "trapezoid"] = Field(
        default="warmup", description="of the weight (lambda)"
    )
    peak: float = Field(default=2.0, gt=0, description="largest weight")
    ramp: float = Field(default=0.2857, gt=0, le=1, description="share of the steps that rise")
    min_distance: Count = Field(
        default=1, description="choices in which a pair differs, where there are such archs"
    )


class TeacherConfig(StrictModel):
    """A trained timm model beside the labels: (1 - w) * labels + w * its logits."""

    model: str = Field(description="a name of timm.list_models()")
    weights: Path = Field(description=".safetensors or .npz of the model; nothing is downloaded")
    px: Count | None = Field(default=None, description="resolution it sees; that of the data")
    weight: float = Field(default=0.5, ge=0, le=1, description="w")
    normalisation: Literal["data", "timm"] = Field(
        default="data", description="mean and std that it was trained with: the data's or timm's"
    )


class AverageConfig(StrictModel):
    """Exponential moving average of the weights, which is then what is scored and exported."""

    decay: float = Field(default=0.998, gt=0, lt=1, description="per step")
    warmup: bool = Field(default=True, description="shorter memory at first (timm's ModelEmaV3)")


class TrainConfig(StrictModel):
    """Supernet training, by default sandwich rule and in-place distillation (BigNAS 2003.11142).

    With `accumulation` k every batch is split into k parts that run one after the other, as each
    with its own BN statistics; gradients are averaged. Memory is that of a part. Without BN the
    result is that of the undivided batch.
    """

    steps: Annotated[int, Field(ge=0)] = Field(
        default=280,
        description="optimiser steps; each runs every arch of the sampler; 0: the weights stay as"
        " `supernet.init` has them",
    )
    batch_size: Annotated[int, Field(ge=2)] = 32
    """Images per step."""
    head_epochs: Annotated[int, LATER] = Field(
        default=0,
        ge=0,
        description="epochs before the first step in which the classifier alone learns, from"
        " features that the largest arch computes once; for `supernet.init` of other classes",
    )
    elastic_warmup: Annotated[float, LATER] = Field(
        default=0.0,
        ge=0,
        le=1,
        description="share of the steps over which choices open, from their largest values down;"
        " the largest arch is trained first, the smallest last",
    )
    accumulation: Annotated[Count, LATER] = Field(
        default=1, description="parts of a batch that run one after the other"
    )
    sampler: variant(SAMPLERS) = Field(default=Sandwich(), description="which archs a step runs")  # type: ignore[valid-type]
    optimizer: OptimizerConfig = OptimizerConfig()
    label_smoothing: Fraction = Field(default=0.1, description="on the largest only")
    dropout: Fraction = Field(default=0.0, description="before the classifier of the largest")
    drop_path: Fraction = Field(default=0.0, description="on the residual branches of the largest")
    temperature: float = Field(default=1.0, gt=0, description="of the distillation's softmaxes")
    distillation: Annotated[Literal["soft_cross_entropy", "kl", "alpha"], LATER] = Field(
        default="soft_cross_entropy",
        description="`alpha`: AlphaNet's clipped, adaptive alpha-divergence (2102.07954)",
    )
    alpha_clip: Annotated[float, LATER] = Field(
        default=5.0, gt=1, description="largest importance weight of `alpha`"
    )
    ranking: Annotated[RankingConfig | None, LATER] = Field(
        default=None, description="ranking pairs beside the sampler's archs"
    )
    teacher: Annotated[TeacherConfig | None, LATER] = Field(
        default=None, description="a timm model that teaches whoever learns labels"
    )
    ema: Annotated[AverageConfig | None, LATER] = Field(
        default=None, description="a moving average of the weights, to be exported"
    )
    precision: MixedPrecision = "fp32"
    calibration: CalibrationConfig = Field(
        default=CalibrationConfig(), description="for the curves"
    )
    curve_every: Count = Field(
        default=70, description="steps between two points of the three curves"
    )
    curve_images: Count = Field(default=512, description="validation images of a point, at most")
    checkpoint_every: Count = Field(default=70, description="steps between two checkpoints")
    keep_last: Annotated[Count, LATER] = Field(default=2, description="checkpoints that stay")
    keep_best: Annotated[bool, LATER] = Field(
        default=True, description="also keep the weights of the best mean top1 of the curves"
    )
    tensorboard: Annotated[bool, LATER] = Field(
        default=False, description="rows also go to the run's folder `tensorboard`"
    )

    @model_validator(mode="after")
    def _parts_are_equal(self) -> TrainConfig:
        size, rest = divmod(self.batch_size, self.accumulation)
        if self.accumulation > 1 and (rest or size < 2):
            raise ValueError(
                f"accumulation {self.accumulation} does not divide batch_size {self.batch_size} "
                "into equal parts of 2 images or more"
            )
        return self


class FinetuneConfig(StrictModel):
    """Training of one extracted subnet: (1 - w) * labels + w * the largest's logits."""

    epochs: Annotated[int, Field(ge=0)] = Field(
        default=6, description="passes over the training images"
    )
    batch_size: Annotated[int, Field(ge=2)] = 64
    """Images per step."""
    optimizer: OptimizerConfig = OptimizerConfig(lr=2e-3)
    label_smoothing: Fraction = 0.1
    """Of the labels' share of the loss."""
    distillation: float = Field(default=0.5, ge=0, le=1, description="w, the weight of the teacher")
    temperature: float = Field(default=1.0, gt=0, description="of the distillation's softmaxes")
    precision: FinetunePrecision = "fp32"
    calibration: CalibrationConfig = CalibrationConfig()


class TrainedLabelConfig(StrictModel):
    """Labels from stand-alone training: expensive, few, and the ground truth."""

    n: Annotated[int, Field(ge=0, description="random archs trained stand-alone; 0: none")] = 0
    recipe: FinetuneConfig = Field(
        default=FinetuneConfig(epochs=30, distillation=0.0), description="without a teacher"
    )

    @model_validator(mode="after")
    def _is_float(self) -> TrainedLabelConfig:
        if self.recipe.precision == "int8":
            raise ValueError("recipe.precision int8: labels are accuracies of float networks")
        return self


class LabelConfig(StrictModel):
    """Scores of sampled subnets, which the accuracy predictor learns from.

    With `records` the scores come from a file and no subnet is evaluated.
    """

    n_archs: Count = Field(default=250, description="archs that get a label")
    records: Annotated[Path | None, LATER, Field(description="file of labelled archs")] = None
    reader: Annotated[str | None, LATER, Field(description="its format, if it cannot be told")] = (
        None
    )
    target: Annotated[str | None, LATER, Field(description="column of the scores")] = None
    calibration: CalibrationConfig = CalibrationConfig()
    trained: Annotated[TrainedLabelConfig, LATER] = TrainedLabelConfig()

    @model_validator(mode="after")
    def _check(self) -> LabelConfig:
        if self.records is None and (self.reader or self.target):
            raise ValueError("`reader` and `target` say how `records` are read, and there are none")
        if self.records is not None and self.trained.n:
            raise ValueError("labels come from `records` or from archs `trained` here, not both")
        return self

    @classmethod
    def removed(cls) -> tuple[str, ...]:
        """`source`, always the supernet: `trained` has labels of another source."""
        return ("source",)

    def removed_values(self) -> dict[str, Any]:
        """See `StrictModel`."""
        return {"source": "supernet"}
