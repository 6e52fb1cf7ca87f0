"""Sections of the configuration for the search and what is compared with it. Torch-free."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from hwnas.acquisitions import REGISTRY as ACQUISITIONS
from hwnas.controller.sections import SearchConfig
from hwnas.core.config import LATER, StrictModel, variant
from hwnas.measure.references.settings import ReferencesConfig
from hwnas.searchers import REGISTRY as SEARCHERS

__all__ = ["EvaluatorConfig", "RemeasureConfig", "SearchSection", "StandaloneConfig"]


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


class EvaluatorConfig(StrictModel):
    """Archs are scored with the trained supernet, or looked up in `records`.

    Archs that are not in the file are rejected, and do not count as evaluations. With records no
    supernet is trained; the predictor learns from the evaluations of the search.
    """

    records: Annotated[
        Path | None,
        Field(
            description="File of labelled archs, in which the search looks scores up; null: score"
            " with the supernet."
        ),
    ] = None
    reader: Annotated[
        str | None,
        Field(description="Format of the file `records` (`hwnas list readers`); null: detect it."),
    ] = None
    target: Annotated[
        str | None,
        Field(
            description="Column of the file `records` that has the scores; null: the default column"
            " of the reader."
        ),
    ] = None

    @classmethod
    def removed(cls) -> tuple[str, ...]:
        """Returns the removed key `name`, whose value now follows from `records`."""
        return ("name",)

    def removed_values(self) -> dict[str, Any]:
        """See `StrictModel.removed_values`."""
        return {"name": "supernet" if self.records is None else "tabular"}

    @model_validator(mode="after")
    def _check(self) -> EvaluatorConfig:
        if self.records is None and (self.reader or self.target):
            raise ValueError("`reader` and `target` need `records`")
        return self


class RemeasureConfig(StrictModel):
    """Re-measurement (`controller/remeasure.py`) on every device with a latency limit.

    Its key in the configuration is `search.closing`, the name in earlier versions.
    """

    n_retimed: Annotated[
        int,
        Field(
            ge=1,
            le=1000,
            description="Number of the best archs that are re-measured in every round (one search"
            " and one timing).",
        ),
    ] = 4
    max_rounds: Annotated[
        int,
        Field(
            ge=0,
            le=100,
            description=(
                "Maximum number of rounds of re-measurement. Each is a search with estimates that"
                " earlier timings corrected; 0: no re-measurement."
            ),
        ),
    ] = 0


class SearchSection(SearchConfig):
    """Settings of the controller and of its searcher, and the source of scores.

    `per_device`: a front and a winner for every device of the project, with the limits on its own
    latency and those without a device. The winner of the first device is deployed.
    """

    searcher: variant(SEARCHERS) = Field(  # type: ignore[valid-type]
        default={"name": "policy_gradient"}, validate_default=True
    )
    """Search algorithm that proposes archs; see `hwnas list searchers`."""
    acquisition: Annotated[variant(ACQUISITIONS) | None, LATER] = None  # type: ignore[valid-type]
    """Rule that selects which proposed archs are evaluated (`hwnas list acquisitions`); null:
    `exploration` with the weight `search.exploration`.
    """
    evaluator: EvaluatorConfig = EvaluatorConfig()
    closing: RemeasureConfig = RemeasureConfig()
    per_device: bool = False
    """Whether every device of `devices` gets its own front and winner, with the limits on its own
    latency and those without a device.
    """
    references: Annotated[ReferencesConfig | None, LATER] = None
    """Published networks that are timed together with the winner; `{}`: eight common ones."""

    @model_validator(mode="after")
    def _one_acquisition(self) -> SearchSection:
        if self.acquisition is not None and self.exploration:
            raise ValueError("`exploration` has no effect with `acquisition`; remove one of them")
        return self
