"""Settings of one search. The pipeline adds the section of the searcher."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from hwnas.controller.constraints import metric_key
from hwnas.controller.reward import RewardConfig
from hwnas.core.config import StrictModel
from hwnas.interfaces import Constraint

__all__ = ["SearchConfig"]

NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
Count = Annotated[int, Field(ge=1, le=100_000_000)]


class SearchConfig(StrictModel):
    """Constraints on the arch, the reward, and budgets on the search.

    `n_predictions` bounds the proposals; each arch is priced and predicted once, repeats are
    answered from the archive but count. They come in generations of `generation_size`, after each
    of which the searcher learns. `n_evaluations` bounds the archs that the evaluator runs, best
    feasible ones first: a share after every `evaluate_every` generations, the rest at the end.
    """

    name: Annotated[str, Field(pattern=NAME, description="folder of the results")] = "main"
    constraints: tuple[Constraint, ...] = ()
    """Limits, each `{device, metric, max}` or `{device, metric, max_fraction_of_largest}`."""
    reward: RewardConfig = RewardConfig()
    n_predictions: Count = 12_800
    """Proposals, each priced and predicted once; random search beside it gets as many."""
    generation_size: Annotated[int, Field(ge=2, le=1_000_000)] = 128
    """Proposals between two updates of the searcher."""
    n_evaluations: Annotated[int, Field(ge=1, le=1_000_000)] = 32
    """Archs that the evaluator runs, the best feasible ones first."""
    evaluate_every: Annotated[int, Field(ge=1, description="generations")] = 20
    n_initial: Annotated[
        int, Field(ge=4, description="uniform archs evaluated first, where nothing is predicted")
    ] = 20
    exploration: Annotated[
        float,
        Field(ge=0, le=100, description="predicted deviations added when choosing evaluations"),
    ] = 0.0
    top_k: Annotated[int, Field(ge=1, le=10_000, description="best archs that are reported")] = 10
    max_seconds: Annotated[float | None, Field(gt=0, description="of all sessions")] = None

    @property
    def n_generations(self) -> int:
        """Generations that `n_predictions` suffice for, the last one possibly smaller."""
        return -(-self.n_predictions // self.generation_size)

    @model_validator(mode="after")
    def _distinct_constraints(self) -> SearchConfig:
        bounded = {metric_key(constraint) for constraint in self.constraints}
        if len(bounded) < len(self.constraints):
            raise ValueError("two constraints bound the same metric of the same device")
        return self
