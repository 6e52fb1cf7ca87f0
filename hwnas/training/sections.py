"""Settings of supernet training and fine-tuning; `label_sections` has labelling. Torch-free.

The defaults are a recipe for the digits in `mobilenet_tiny` at 16, 20 and 24 px. On one CPU core it
takes 75 s for the supernet, and 10 s for a subnet with a quarter of the largest MACs. Measured with
three seeds: inherited top1 of random subnets 0.95 .. 0.99, test top1 of fine-tuned subnets 0.986 ..
1.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from hwnas.core.config import LATER, StrictModel, variant
from hwnas.core.errors import Invalid
from hwnas.training.optional_sections import (
    AverageConfig,
    Count,
    RankingConfig,
    TeacherConfig,
)
from hwnas.training.samplers import REGISTRY as SAMPLERS
from hwnas.training.samplers.sandwich import Config as Sandwich

__all__ = [
    "KEEPING",
    "CalibrationConfig",
    "FinetuneConfig",
    "OptimizerConfig",
    "SupernetConfig",
    "TrainConfig",
]

KEEPING = frozenset({"keep_best", "keep_last", "tensorboard"})
"""Settings that only affect the stored files; changing them does not repeat a finished training."""

Fraction = Annotated[float, Field(ge=0, lt=1)]
MixedPrecision = Annotated[
    Literal["fp32", "bf16", "fp16"],
    LATER,
    Field(
        description="Arithmetic in training. `bf16`, `fp16`: mixed precision on CUDA; CPUs always"
        " use fp32."
    ),
]

FinetunePrecision = Annotated[
    Literal["fp32", "bf16", "fp16", "int8"],
    LATER,
    Field(
        description=(
            "Arithmetic in training. `bf16`, `fp16`: mixed precision on CUDA; CPUs use fp32."
            " `int8`: quantisation-aware training, which after a quarter of the steps rounds as the"
            " exported 8-bit file does."
        )
    ),
]


class OptimizerConfig(StrictModel):
    """An optimiser of timm with linear warm-up and one of timm's schedules, per step."""

    name: str = "adamw"
    """Name of the optimiser, from timm.optim.list_optimizers()."""
    lr: float = Field(default=2e-2, gt=0)
    """Peak learning rate, which is reached at the end of the warm-up. The batch size has no
    influence on it.
    """
    min_lr: float = Field(default=0.0, ge=0)
    """Learning rate at the end of the schedule."""
    schedule: Annotated[Literal["cosine", "step", "poly", "tanh", "constant"], LATER] = "cosine"
    """Schedule of the learning rate after the warm-up."""
    decay_every: Annotated[float, LATER] = Field(default=0.3, gt=0, le=1)
    """Share of the steps between two decays of the learning rate; only for the schedule `step`."""
    decay_rate: Annotated[float, LATER] = Field(default=0.1, gt=0, le=1)
    """Factor by which a decay multiplies the learning rate; only for the schedule `step`."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Momentum of the optimiser; no effect if it has none."""
    weight_decay: float = Field(default=1e-2, ge=0)
    """Weight decay of the optimiser; biases and BN parameters have none."""
    layer_decay: Annotated[float, LATER] = Field(default=1.0, gt=0, le=1)
    """Learning rate of a stage of the network / that of the next stage towards the classifier.
    Below 1, pretrained weights near the image change less.
    """
    warmup: Fraction = 0.05
    """Share of the steps, at the start, in which the learning rate rises from lr / 100 to lr."""
    clip_norm: float | None = Field(default=1.0, gt=0)
    """Maximum norm of all gradients of a step together; larger ones are scaled down. null: no
    limit.
    """
    clip_value: Annotated[float | None, LATER] = Field(default=None, gt=0)
    """Maximum absolute value of each element of a gradient (AttentiveNAS: 1); null: no limit."""


class CalibrationConfig(StrictModel):
    """Training images, not augmented, from which BN statistics are computed."""

    n_batches: Count = 1
    """Number of batches of training images, not augmented, from which BN statistics are computed.
    """
    batch_size: Annotated[int, Field(ge=2)] = 128
    """Number of images per batch in the computation of BN statistics."""


class SupernetConfig(StrictModel):
    """Weight sharing and starting weights of the supernet."""

    weak_sharing: bool = False
    """Whether a hypernetwork adapts the shared weights to every arch (WPNAS)."""
    kernel_transform: bool = True
    """Whether smaller kernels are learned linear maps of the larger kernels, instead of their
    centres.
    """
    share_ops: bool = False
    """Whether alternative operators of a block share weights, instead of having their own."""
    branches: Annotated[int, LATER, Field(ge=1, le=8)] = 1
    """Number of parallel kernels of each depthwise convolution in training; networks that are
    extracted have their sum as one kernel (2204.00826).
    """
    init: str | None = None
    """Starting weights. A path names a supernet of the same space, a published supernet, or a
    network that equals the largest arch; its channels are then sorted by importance. `shipped` and
    `timm:NAME` name published networks (`hwnas pretrained list`). null: random weights.
    """


class TrainConfig(StrictModel):
    """Supernet training, by default sandwich rule and in-place distillation (BigNAS 2003.11142).

    With `accumulation` k, every batch is split into k parts that run one after the other, each with
    its own BN statistics. Gradients are averaged, and memory holds one part at a time. Without BN,
    the result is the same as with the full batch.
    """

    steps: Annotated[int, Field(ge=0)] = 280
    """Optimiser steps, each of which runs all archs of the sampler; 0: keep the weights of
    `supernet.init`.
    """
    batch_size: Annotated[int, Field(ge=2)] = 32
    """Number of training images per optimiser step."""
    head_epochs: Annotated[int, LATER] = Field(default=0, ge=0)
    """Epochs before the training in which only the classifier is trained, from features that the
    largest arch computes once; for a `supernet.init` with other classes. 0: none.
    """
    elastic_warmup: Annotated[float, LATER] = Field(default=0.0, ge=0, le=1)
    """Share of the steps, from the start of the training, in which smaller values of the choices
    are added step by step. At first only the largest arch is trained; after this share, all values
    are used. 0: all values are used from the start.
    """
    accumulation: Annotated[Count, LATER] = 1
    """Number of parts into which each batch is split. They run one after the other, each with its
    own BN statistics, and their gradients are averaged. More parts need less memory.
    """
    sampler: variant(SAMPLERS) = Sandwich()  # type: ignore[valid-type]
    """Rule that selects the archs that a step runs; see `hwnas list samplers`."""
    optimizer: OptimizerConfig = OptimizerConfig()
    label_smoothing: Fraction = 0.1
    """Label smoothing in the loss of the largest arch; 0: none."""
    dropout: Fraction = 0.0
    """Dropout rate before the classifier of the largest arch; in recurrent networks, locked dropout
    (1512.05287) of inputs, state and outputs of every arch.
    """
    drop_path: Fraction = 0.0
    """Rate at which residual branches of the largest arch are left out in training."""
    temperature: float = Field(default=1.0, gt=0)
    """Factor by which logits are divided before the softmaxes of distillation."""
    distillation: Annotated[Literal["soft_cross_entropy", "kl", "alpha"], LATER] = (
        "soft_cross_entropy"
    )
    """Loss with which archs learn from the largest arch or another teacher. `alpha`: AlphaNet's
    clipped, adaptive alpha-divergence (2102.07954).
    """
    alpha_clip: Annotated[float, LATER] = Field(default=5.0, gt=1)
    """Largest importance weight in the loss `alpha` of `train.distillation`."""
    ranking: Annotated[RankingConfig | None, LATER] = None
    """Ranking pairs in addition to the archs of the sampler."""
    teacher: Annotated[TeacherConfig | None, LATER] = None
    """A timm model that is the teacher of archs that learn from labels."""
    ema: Annotated[AverageConfig | None, LATER] = None
    """A moving average of the weights, which is then exported."""
    precision: MixedPrecision = "fp32"
    calibration: CalibrationConfig = CalibrationConfig()
    """BN calibration for the curves."""
    curve_every: Count = 70
    """Steps between two points of the training curves, which show the validation accuracy of the
    smallest, a middle and the largest arch.
    """
    curve_images: Count = 512
    """Maximum number of validation images for a point of the training curves."""
    checkpoint_every: Count = 70
    """Steps between two checkpoints."""
    keep_last: Annotated[Count, LATER] = 2
    """Number of the latest checkpoints that are kept."""
    keep_best: Annotated[bool, LATER] = True
    """Whether to keep also the weights with the best mean top-1 of the training curves."""
    tensorboard: Annotated[bool, LATER] = False
    """Whether to write metrics also to the folder `tensorboard` of the run."""

    @model_validator(mode="after")
    def _parts_are_equal(self) -> TrainConfig:
        size, rest = divmod(self.batch_size, self.accumulation)
        if self.accumulation > 1 and (rest or size < 2):
            n = self.accumulation
            parts = f"a multiple of accumulation ({n}), and at least {2 * n} (2 images per part)"
            raise Invalid(parts, self.batch_size, key="batch_size")
        return self


class FinetuneConfig(StrictModel):
    """Training of one extracted subnet: (1 - w) * labels + w * logits of the largest subnet."""

    epochs: Annotated[int, Field(ge=0)] = 6
    """Number of passes over the training images; 0: no training."""
    batch_size: Annotated[int, Field(ge=2)] = 64
    """Number of training images per optimiser step."""
    optimizer: OptimizerConfig = OptimizerConfig(lr=2e-3)
    label_smoothing: Fraction = 0.1
    """Label smoothing in the part of the loss that compares with labels; 0: none."""
    distillation: float = Field(default=0.5, ge=0, le=1)
    """Weight w of the teacher in the loss, (1 - w) * labels + w * teacher; 0: only labels."""
    feature_distillation: Annotated[float, LATER] = Field(default=0.0, ge=0)
    """Weight of an additional loss, the distance to the features of the teacher (the inputs of its
    classifier). 0: none. Use 2 to 6 for subnets of pretrained networks and a few thousand photos.
    """
    teacher: Annotated[Literal["inherited", "tuned"], LATER] = "inherited"
    """The teacher is the largest network. `inherited`: with the weights of the supernet. `tuned`:
    after fine-tuning from the labels, which is better if the supernet was trained for few steps.
    """
    average: Annotated[bool, LATER] = False
    """Whether to average the weights before and after fine-tuning (not in int8) and, with
    `supernet.init`, those before and after the training of the supernet. The share of the later
    weights with the smallest validation loss is used (WiSE-FT 2109.01903). For pretrained weights
    and few images.
    """
    temperature: float = Field(default=1.0, gt=0)
    """Factor by which logits are divided before the softmaxes of distillation."""
    drop_path: Annotated[Fraction, LATER] = 0.0
    """Rate at which terms of the sums of cells and branches of residual blocks are left out,
    separately for each image. It grows linearly from 0 to this rate at the last step.
    """
    auxiliary: Annotated[float, LATER] = Field(default=0.0, ge=0, le=1)
    """Weight in the loss of an auxiliary classifier after 2/3 of the cells, only in the space
    `darts`; 0: none. The trained network does not contain this classifier.
    """
    dropout: Annotated[Fraction, LATER] = 0.0
    """Rate of locked dropout (1512.05287) of inputs, state and outputs; only in recurrent networks.
    """
    precision: FinetunePrecision = "fp32"
    calibration: CalibrationConfig = CalibrationConfig()

    @property
    def has_teacher(self) -> bool:
        """Whether a part of the loss compares with a teacher."""
        return self.distillation > 0 or self.feature_distillation > 0

    @property
    def is_averaged(self) -> bool:
        """Whether weights before and after are averaged; averages are compared in float."""
        return self.average and self.precision != "int8"

    @model_validator(mode="after")
    def _regularises_in_float(self) -> FinetuneConfig:
        rates = {"drop_path": self.drop_path, "auxiliary": self.auxiliary}
        if used := [key for key, rate in rates.items() if rate and self.precision == "int8"]:
            raise Invalid("0 with precision int8", rates[used[0]], key=used[0])
        return self
