"""Settings of supernet training and fine-tuning; `label_sections` has labelling. Torch-free.

The defaults are a recipe for the digits in `mobilenet_tiny` at 16, 20 and 24 px. On one CPU core it
takes 75 s for the supernet, and 10 s for a subnet with a quarter of the largest MACs. Measured with
three seeds: inherited top1 of random subnets 0.95 .. 0.99, test top1 of fine-tuned subnets 0.986 ..
1.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

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
    "OptimizerConfig",
    "RankingConfig",
    "SupernetConfig",
    "TeacherConfig",
    "TrainConfig",
]

KEEPING = frozenset({"keep_best", "keep_last", "tensorboard"})
"""Settings that only affect the stored files; changing them does not repeat a finished training."""

Fraction = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
MixedPrecision = Annotated[
    Literal["fp32", "bf16", "fp16"],
    LATER,
    Field(description="Mixed precision on CUDA; CPUs always use fp32."),
]

FinetunePrecision = Annotated[
    Literal["fp32", "bf16", "fp16", "int8"],
    LATER,
    Field(
        description=(
            "`bf16`, `fp16`: mixed precision on CUDA; `int8`: quantisation-aware training,"
            " which rounds as the 8-bit file does after a quarter of the steps."
        )
    ),
]


class OptimizerConfig(StrictModel):
    """An optimiser of timm with linear warm-up and one of timm's schedules, per step."""

    name: str = "adamw"
    """A name from timm.optim.list_optimizers()."""
    lr: float = Field(default=2e-2, gt=0)
    """Peak learning rate; it is not scaled by the batch size."""
    min_lr: float = Field(default=0.0, ge=0)
    """Final learning rate."""
    schedule: Annotated[Literal["cosine", "step", "poly", "tanh", "constant"], LATER] = "cosine"
    """Schedule of the learning rate after the warm-up."""
    decay_every: Annotated[float, LATER] = Field(default=0.3, gt=0, le=1)
    """Share of the steps between two decays, for the schedule `step`."""
    decay_rate: Annotated[float, LATER] = Field(default=0.1, gt=0, le=1)
    """Factor of a decay, for the schedule `step`."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Momentum, if the optimiser has one."""
    weight_decay: float = Field(default=1e-2, ge=0)
    """Weight decay, except on biases and BN parameters."""
    layer_decay: Annotated[float, LATER] = Field(default=1.0, gt=0, le=1)
    """Learning rate of a stage / learning rate of the next stage towards the classifier. Below 1,
    pretrained weights near the image change less.
    """
    warmup: Fraction = 0.05
    """Share of the steps in which the learning rate rises from lr / 100."""
    clip_norm: float | None = Field(default=1.0, gt=0)
    """Maximum global gradient norm; null: no limit."""
    clip_value: Annotated[float | None, LATER] = Field(default=None, gt=0)
    """Maximum absolute value in a gradient (AttentiveNAS: 1); null: no limit."""


class CalibrationConfig(StrictModel):
    """Training images, not augmented, from which BN statistics are computed."""

    n_batches: Count = 1
    """Number of batches."""
    batch_size: Annotated[int, Field(ge=2)] = 128
    """Images per batch."""


class SupernetConfig(StrictModel):
    """Weight sharing and starting weights of the supernet."""

    weak_sharing: bool = False
    """A hypernetwork adapts the shared weights to every arch (WPNAS)."""
    kernel_transform: bool = True
    """Whether small kernels are learned maps of larger ones, instead of their centres."""
    share_ops: bool = False
    """Whether alternative operators of a block share slices."""
    branches: Annotated[int, LATER, Field(ge=1, le=8)] = 1
    """Number of depthwise kernels that train as a sum and deploy as one (2204.00826)."""
    init: str | None = None
    """Starting weights. A path names a supernet of the same space, a published supernet, or a
    network that equals the largest arch; its channels are then sorted by importance. `shipped` and
    `timm:NAME` name published networks (`hwnas pretrained list`). null: random weights.
    """


class RankingConfig(StrictModel):
    """Ranking loss on pairs of archs in every step (PGONAS 2206.13329).

    A prior says which arch of a pair should have the lower loss. A pair costs two forward passes.
    """

    pairs: Count = 2
    """Pairs per step."""
    prior: variant(PROXIES) = Field(default={"name": "macs"}, validate_default=True)  # type: ignore[valid-type]
    """The prior that predicts which arch is better."""
    gradient: Literal["better", "both"] = "better"
    """`better`: train the better arch; `both`: also raise the loss of the worse."""
    schedule: Literal["constant", "warmup", "sine", "trapezoid"] = "warmup"
    """Schedule of the weight (lambda)."""
    peak: float = Field(default=2.0, gt=0)
    """Maximum weight."""
    ramp: float = Field(default=0.2857, gt=0, le=1)
    """Share of the steps in which the weight rises."""
    min_distance: Count = 1
    """Minimum number of choices in which a pair differs, if there are such archs."""


class TeacherConfig(StrictModel):
    """A trained timm model as a teacher besides the labels: (1 - w) * labels + w * its logits."""

    model: str
    """A name from timm.list_models()."""
    weights: Path
    """Weights of the model, .safetensors or .npz; nothing is downloaded."""
    px: Count | None = None
    """Resolution of its images in px; default: the resolution of the data."""
    weight: float = Field(default=0.5, ge=0, le=1)
    """Weight w of the teacher."""
    normalisation: Literal["data", "timm"] = "data"
    """Mean and std that normalise its images: those of the data set (`data`), or of timm."""


class AverageConfig(StrictModel):
    """Exponential moving average of the weights, which is used for scoring and export."""

    decay: float = Field(default=0.998, gt=0, lt=1)
    """Decay per step."""
    warmup: bool = True
    """Use a lower decay at first (timm's ModelEmaV3)."""


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
    """Images per step."""
    head_epochs: Annotated[int, LATER] = Field(default=0, ge=0)
    """Epochs in which only the classifier is trained first, from features that the largest arch
    computes once; for a `supernet.init` with other classes.
    """
    elastic_warmup: Annotated[float, LATER] = Field(default=0.0, ge=0, le=1)
    """Share of the steps in which the values of choices are added, from the largest down; the
    largest arch is trained first, the smallest last.
    """
    accumulation: Annotated[Count, LATER] = 1
    """Number of parts of a batch that run one after the other."""
    sampler: variant(SAMPLERS) = Sandwich()  # type: ignore[valid-type]
    """Selects the archs that a step runs."""
    optimizer: OptimizerConfig = OptimizerConfig()
    label_smoothing: Fraction = 0.1
    """Label smoothing of the largest arch."""
    dropout: Fraction = 0.0
    """Dropout before the classifier of the largest arch; in recurrent networks, locked dropout
    (1512.05287) of inputs, state and outputs of every arch.
    """
    drop_path: Fraction = 0.0
    """Drop-path rate of the residual branches of the largest arch."""
    temperature: float = Field(default=1.0, gt=0)
    """Temperature of the softmaxes in distillation."""
    distillation: Annotated[Literal["soft_cross_entropy", "kl", "alpha"], LATER] = (
        "soft_cross_entropy"
    )
    """Divergence from the teacher; `alpha`: AlphaNet's clipped, adaptive alpha-divergence
    (2102.07954).
    """
    alpha_clip: Annotated[float, LATER] = Field(default=5.0, gt=1)
    """Maximum importance weight of `alpha`."""
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
    """Steps between two points of the three training curves."""
    curve_images: Count = 512
    """Maximum number of validation images per point."""
    checkpoint_every: Count = 70
    """Steps between two checkpoints."""
    keep_last: Annotated[Count, LATER] = 2
    """Number of checkpoints to keep."""
    keep_best: Annotated[bool, LATER] = True
    """Also keep the weights with the best mean top1 of the curves."""
    tensorboard: Annotated[bool, LATER] = False
    """Also write metrics to the folder `tensorboard` of the run."""

    @model_validator(mode="after")
    def _parts_are_equal(self) -> TrainConfig:
        size, rest = divmod(self.batch_size, self.accumulation)
        if self.accumulation > 1 and (rest or size < 2):
            raise ValueError(
                f"accumulation {self.accumulation} does not divide batch_size {self.batch_size} "
                "into equal parts of at least 2 images"
            )
        return self


class FinetuneConfig(StrictModel):
    """Training of one extracted subnet: (1 - w) * labels + w * logits of the largest subnet."""

    epochs: Annotated[int, Field(ge=0)] = 6
    """Passes over the training images."""
    batch_size: Annotated[int, Field(ge=2)] = 64
    """Images per step."""
    optimizer: OptimizerConfig = OptimizerConfig(lr=2e-3)
    label_smoothing: Fraction = 0.1
    """Label smoothing in the label part of the loss."""
    distillation: float = Field(default=0.5, ge=0, le=1)
    """Weight w of the teacher."""
    feature_distillation: Annotated[float, LATER] = Field(default=0.0, ge=0)
    """Weight of an additional loss, the distance to the features of the teacher (the inputs of its
    classifier). Use 2 to 6 for subnets of pretrained networks and a few thousand photos.
    """
    teacher: Annotated[Literal["inherited", "tuned"], LATER] = "inherited"
    """The teacher is the largest network. `inherited`: with the weights of the supernet. `tuned`:
    after fine-tuning from the labels, which is better if the supernet was trained for few steps.
    """
    average: Annotated[bool, LATER] = False
    """Whether to average the weights before and after fine-tuning (not in int8) and, with
    `supernet.init`, those before and after the training of the supernet. The share with the
    smallest validation loss is used (WiSE-FT 2109.01903). For pretrained weights and few images.
    """
    temperature: float = Field(default=1.0, gt=0)
    """Temperature of the softmaxes in distillation."""
    drop_path: Annotated[Fraction, LATER] = 0.0
    """Rate of drop path, which grows linearly up to the last step. For single images, drop path
    leaves out terms of the sums of cells, and branches of residual blocks.
    """
    auxiliary: Annotated[float, LATER] = Field(default=0.0, ge=0, le=1)
    """Loss weight of an auxiliary classifier after 2/3 of the cells, only in the space `darts`. The
    trained network does not contain this classifier.
    """
    dropout: Annotated[Fraction, LATER] = 0.0
    """Locked dropout (1512.05287) of inputs, state and outputs of a recurrent network."""
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
        if self.precision == "int8" and (self.drop_path or self.auxiliary):
            raise ValueError("precision int8 has no drop_path and no auxiliary classifier")
        return self
