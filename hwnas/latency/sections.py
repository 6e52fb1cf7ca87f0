"""Settings of a profiling run."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from hwnas.core.config import StrictModel

__all__ = ["N_ANCHORS", "ProfileConfig"]

N_ANCHORS = 6
"""Number of networks of the table that are timed again with others, for the machine's pace."""

MAX_RETIMING_ROUNDS = 2000

Count = Annotated[int, Field(ge=1, le=1_000_000)]
Seconds = Annotated[float, Field(ge=0, le=1e6)]


class ProfileConfig(StrictModel):
    """How long a device is timed, and on how many networks its table is validated."""

    rounds: Count = Field(20, description="Number of rounds; every item has one turn per round.")
    min_rounds: Count = Field(
        8, description="Minimum number of rounds, even if the time budget is exceeded."
    )
    time_budget_s: Seconds = Field(
        900.0,
        description=(
            "Time limit of the timing, in seconds; building and loading models takes"
            " additional time."
        ),
    )
    target_error: Annotated[float, Field(ge=0, le=1)] = Field(
        0.003,
        description=(
            "Stop early when, for 95 % of the items, the half-width of the median's 90 % interval"
            " is below this fraction of the median; 0: never."
        ),
    )
    hot_samples: Annotated[int, Field(ge=2, le=1000)] = Field(
        48, description="Hot runs per turn; their minimum is the result of the turn."
    )
    turn_budget_s: Seconds = Field(
        0.05, description="Seconds after which a turn records no further hot runs."
    )
    warmup_runs: Annotated[int, Field(ge=0, le=1000)] = Field(
        2, description="Runs after loading a model, which are not recorded."
    )
    n_validation: Annotated[int, Field(ge=5, le=10_000)] = Field(
        30, description="Whole networks that are timed to fit and validate the correction."
    )
    retiming_budget_s: Seconds = Field(
        5.0, description="Time limit for re-timing exported models, in seconds."
    )

    @model_validator(mode="after")
    def _check(self) -> ProfileConfig:
        if self.min_rounds > self.rounds:
            raise ValueError(f"min_rounds ({self.min_rounds}) exceeds rounds ({self.rounds})")
        return self

    @property
    def retiming(self) -> ProfileConfig:
        """Settings of a session that times whole networks."""
        changes = {
            "rounds": MAX_RETIMING_ROUNDS,
            "time_budget_s": self.retiming_budget_s,
            "target_error": 0.0,  # timings of one quiet second do not predict the next
        }
        return self.model_copy(update=changes)
