"""Settings of a profiling run."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from hwnas.core.config import StrictModel

__all__ = ["ProfileConfig"]

Count = Annotated[int, Field(ge=1, le=1_000_000)]
Seconds = Annotated[float, Field(ge=0, le=1e6)]


class ProfileConfig(StrictModel):
    """How long a device is timed, and on how many networks its table is proven."""

    rounds: Count = Field(20, description="every item has one turn per round")
    min_rounds: Count = Field(8, description="timed even when the budget is spent")
    time_budget_s: Seconds = Field(
        900.0, description="of timing; building and loading models come on top"
    )
    target_error: Annotated[float, Field(ge=0, le=1)] = Field(
        0.003,
        description="stop before the budget once the 90 % intervals of 95 % of the medians are"
        " this narrow (half their width, as a fraction); 0: never",
    )
    hot_samples: Annotated[int, Field(ge=2, le=1000)] = Field(
        48, description="runs per turn after its cold one; their minimum is the turn's result"
    )
    turn_budget_s: Seconds = Field(0.05, description="a turn beyond it takes no more hot samples")
    warmup_runs: Annotated[int, Field(ge=0, le=1000)] = Field(2, description="after loading")
    n_validation: Annotated[int, Field(ge=5, le=10_000)] = Field(
        30, description="whole networks, timed to fit and to validate the correction"
    )
    retiming_budget_s: Seconds = Field(
        5.0, description="of timing, when exported models are re-timed"
    )

    @model_validator(mode="after")
    def _check(self) -> ProfileConfig:
        if self.min_rounds > self.rounds:
            raise ValueError(f"min_rounds ({self.min_rounds}) exceeds rounds ({self.rounds})")
        return self
