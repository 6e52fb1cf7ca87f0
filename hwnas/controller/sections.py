"""Settings of searches: budgets, limits, source of scores, re-measurement.

The pipeline adds the section of the searcher.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from hwnas.controller.constraints import repeated_limits
from hwnas.controller.reward import RewardConfig
from hwnas.core.config import LATER, StrictModel
from hwnas.core.errors import Invalid
from hwnas.interfaces import Constraint

__all__ = ["EvaluatorConfig", "RemeasureConfig", "SearchConfig", "SearchStage"]

NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
MAX_PREDICTIONS = 100_000_000
Count = Annotated[int, Field(ge=1, le=MAX_PREDICTIONS)]


class SearchStage(StrictModel):
    """A part of a search in which some choices vary and the others are fixed."""

    free: Annotated[tuple[str, ...], Field(min_length=1, max_length=256)]
    """Patterns of the choices that vary in this stage of the search, such as `*.width`."""
    share: Annotated[float, Field(gt=0, le=1000)] = 1.0
    """Share of the budgets (`search.n_predictions`, `search.n_evaluations`) that this stage of the
    search gets, relative to the shares of the other stages.
    """


class SearchConfig(StrictModel):
    """Constraints on the arch, the reward, and budgets of the search.

    `n_predictions` limits the proposals. Each arch is priced and predicted once; repeats are read
    from the archive, but count as proposals. The searcher learns after every generation of
    `generation_size` proposals. `n_evaluations` limits the archs that the evaluator runs, the best
    feasible ones first: a part after every `evaluate_every` generations, the rest at the end.
    """

    name: Annotated[
        str,
        Field(pattern=NAME, description="Name of the search, and of its folder below `search/`."),
    ] = "main"
    constraints: tuple[Constraint, ...] = ()
    """Limits, each `{device, metric, max}` or `{device, metric, max_fraction_of_largest}`.

    A latency limit with `probability: 0.9` is met with this probability, according to the interval
    of the estimate.
    """
    limits_met_on: Annotated[float, Field(gt=0, le=1), LATER] = 1.0
    """Share of the devices with a latency limit on which the limits must be met at once.

    1: on all devices; 0.9: the slowest tenth may exceed its limits. Each search of `per_device` has
    one device.
    """
    reward: RewardConfig = RewardConfig()
    n_predictions: Count = 12_800
    """Number of archs that the searcher proposes (repeats count); the random search for comparison
    has the same number.
    """
    generation_size: Annotated[int, Field(ge=2, le=1_000_000)] = 128
    """Number of proposals between two updates of the searcher (a generation)."""
    n_evaluations: Annotated[int, Field(ge=1, le=1_000_000)] = 32
    """Number of proposed archs that are also evaluated (with the supernet, or from records), the
    best within the limits first.
    """
    evaluate_every: Annotated[
        int, Field(ge=1, description="Number of generations between two batches of evaluations.")
    ] = 20
    n_initial: Annotated[
        int,
        Field(
            ge=4,
            description="Number of random archs that are evaluated first, if the run has no labels"
            " to fit the predictor on.",
        ),
    ] = 20
    exploration: Annotated[
        float,
        Field(
            ge=0,
            le=100,
            description=(
                "Number of predicted standard deviations that are added to the predicted score when"
                " archs are selected for evaluation; more than 0 favours uncertain archs."
            ),
        ),
    ] = 0.0
    top_k: Annotated[
        int,
        Field(
            ge=1, le=10_000, description="Number of best archs that the result of the search lists."
        ),
    ] = 10
    max_seconds: Annotated[
        float | None,
        Field(
            gt=0,
            description="Time limit of the search in seconds, over all sessions if it is resumed;"
            " null: none.",
        ),
    ] = None
    stages: Annotated[tuple[SearchStage, ...], LATER, Field(max_length=16)] = ()
    """Stages of the search, run in order; empty: all choices vary at once.

    Each stage fixes the choices that it does not vary at the best arch so far. All stages share the
    budgets of the search.
    """
    held: Annotated[dict[str, int | float | str], LATER] = Field(default={})
    """Values of choices that the first stage of the search does not vary, by pattern; default: the
    largest.
    """

    @property
    def n_generations(self) -> int:
        """Number of generations for `n_predictions`; the last one may be smaller."""
        return -(-self.n_predictions // self.generation_size)

    @model_validator(mode="after")
    def _distinct_constraints(self) -> SearchConfig:
        for key, n in repeated_limits(self.constraints).items():
            raise Invalid("at most one limit per metric and device", f"{n} for {key}")
        return self


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
            given = " and ".join(f"`{key}`" for key in ("reader", "target") if getattr(self, key))
            raise Invalid("`records` with `reader` or `target`", f"{given} without `records`")
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
