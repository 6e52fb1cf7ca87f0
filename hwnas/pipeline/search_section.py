"""The `search:` section: the controller's settings, and what the pipeline puts around it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from hwnas.core.config import StrictModel, variant
from hwnas.search.config import SearchConfig
from hwnas.searchers import REGISTRY as SEARCHERS

__all__ = ["AloneConfig", "ClosingConfig", "EvaluatorConfig", "SearchSection"]


class AloneConfig(StrictModel):
    """How many of the best archs are trained alone, by the recipe of `finetune` without teacher."""

    n: Annotated[int, Field(ge=0, le=1000, description="0: none")] = 0
    epochs: Annotated[int, Field(ge=1, le=100_000)] = 30


class EvaluatorConfig(StrictModel):
    """`supernet` scores archs with the trained supernet; `tabular` looks them up in `records`.

    Archs that the file lacks are rejected without charge. With records no supernet is trained:
    the predictor learns from the evaluations of the search itself.
    """

    name: Literal["supernet", "tabular"] = "supernet"
    records: Annotated[Path | None, Field(description="file of labelled archs")] = None
    reader: Annotated[str | None, Field(description="its format, if it cannot be told")] = None
    target: Annotated[str | None, Field(description="column of the scores")] = None

    @model_validator(mode="after")
    def _check(self) -> EvaluatorConfig:
        if (self.name == "tabular") != (self.records is not None):
            raise ValueError("records belong to the tabular evaluator, which needs them")
        return self


class ClosingConfig(StrictModel):
    """Re-timing of the best `n_retimed` archs on every device with a latency limit.

    `max_rounds` searches, each with what the timings of the one before taught; 0: no re-timing.
    """

    n_retimed: Annotated[int, Field(ge=1, le=1000)] = 4
    max_rounds: Annotated[int, Field(ge=0, le=100)] = 0


class SearchSection(SearchConfig):
    """The controller's settings, the searcher it drives, and who scores.

    `per_device`: a front and a winner for every device of the project, each under the limits of
    its own latency and those of no device; the first device's is the one that is deployed.
    """

    searcher: variant(SEARCHERS) = Field(  # type: ignore[valid-type]
        default={"name": "policy_gradient"}, validate_default=True
    )
    evaluator: EvaluatorConfig = EvaluatorConfig()
    closing: ClosingConfig = ClosingConfig()
    per_device: bool = False
