"""Settings of labels for the predictor, and of stand-alone training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from hwnas.core.config import LATER, RETIRED, StrictModel
from hwnas.core.errors import Invalid
from hwnas.training.optional_sections import Count
from hwnas.training.sections import CalibrationConfig, FinetuneConfig

__all__ = ["LabelConfig", "StandaloneConfig", "StandaloneRecipe", "TrainedLabelConfig"]


class StandaloneRecipe(FinetuneConfig):
    """Training of one network from the labels only, without a teacher."""

    distillation: Annotated[float, RETIRED] = Field(default=0.5, ge=0, le=1)
    """Has no effect."""
    feature_distillation: Annotated[float, LATER, RETIRED] = Field(default=0.0, ge=0)
    """Has no effect."""
    teacher: Annotated[Literal["inherited", "tuned"], LATER, RETIRED] = "inherited"
    """Has no effect."""
    average: Annotated[bool, LATER, RETIRED] = False
    """Has no effect."""
    temperature: Annotated[float, RETIRED] = Field(default=1.0, gt=0)
    """Has no effect."""


class TrainedLabelConfig(StrictModel):
    """Labels from stand-alone training: expensive, few, and the ground truth."""

    n: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """Number of random archs that are trained stand-alone, as labels that do not depend on the
    supernet; 0: none.
    """
    recipe: StandaloneRecipe = StandaloneRecipe(epochs=30, distillation=0.0)
    """Training recipe, without a teacher."""

    @model_validator(mode="after")
    def _is_float(self) -> TrainedLabelConfig:
        if self.recipe.precision == "int8":
            floats = "fp32, bf16 or fp16, because labels are accuracies of float networks"
            raise Invalid(floats, "int8", key="recipe.precision")
        return self


class LabelConfig(StrictModel):
    """Scores of sampled subnets, from which the accuracy predictor learns.

    With `records`, the scores come from a file and no subnet is evaluated.
    """

    n_archs: Annotated[Count, Field(le=1_000_000)] = 250
    """Number of random archs (with `records`: of the file) whose scores are the labels from which
    the predictor learns.
    """
    records: Annotated[Path | None, LATER] = None
    """File of labelled archs, from which labels are read; null: evaluate subnets of the supernet.
    """
    reader: Annotated[str | None, LATER] = None
    """Format of the file `records` (`hwnas list readers`); null: detect it."""
    target: Annotated[str | None, LATER] = None
    """Column of the file `records` that has the scores; null: the default column of the reader."""
    calibration: CalibrationConfig = CalibrationConfig()
    agreement: Annotated[int, LATER, Field(ge=0, le=16_384)] = 0
    """Number of training images on which subnets are compared with the largest network. Their
    scores then use the cross-entropy to the predictions of the largest network, which ranks better
    than the cross-entropy to the labels if there are few validation images. 0: use the labels of
    the validation images.
    """
    trained: Annotated[TrainedLabelConfig, LATER] = TrainedLabelConfig()

    @model_validator(mode="after")
    def _check(self) -> LabelConfig:
        if self.records is None and (self.reader or self.target):
            given = " and ".join(f"`{key}`" for key in ("reader", "target") if getattr(self, key))
            raise Invalid("`records` with `reader` or `target`", f"{given} without `records`")
        if self.records is not None and self.trained.n:
            raise Invalid(
                "one of `records` (labels from a file) and `trained.n` (labels from archs that are"
                " trained in the run)",
                "both",
            )
        return self

    @classmethod
    def removed(cls) -> tuple[str, ...]:
        """Returns the removed key `source`, whose only value was `supernet`."""
        return ("source",)

    def removed_values(self) -> dict[str, Any]:
        """See `StrictModel.removed_values`."""
        return {"source": "supernet"}


class StandaloneConfig(StrictModel):
    """Stand-alone training of the best n archs, by the recipe of `finetune` without a teacher."""

    n: Annotated[
        int,
        Field(
            ge=0,
            le=1000,
            description="Number of the best archs of the search that are also trained stand-alone"
            " (by the recipe of `finetune`, without a teacher), for comparison; 0: none.",
        ),
    ] = 0
    epochs: Annotated[int, Field(ge=1, le=100_000)] = 30
    """Number of passes over the training images in stand-alone training of the best archs."""
