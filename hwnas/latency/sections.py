"""Settings of a profiling run."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from hwnas.core.config import LATER, StrictModel
from hwnas.core.errors import Invalid

__all__ = ["N_ANCHORS", "ProfileConfig"]

N_ANCHORS = 6
"""Number of networks of the table that are timed again with others, for the machine's pace."""

MAX_RETIMING_ROUNDS = 2000

Count = Annotated[int, Field(ge=1, le=1_000_000)]
Seconds = Annotated[float, Field(ge=0, le=1e6)]


class ProfileConfig(StrictModel):
    """How long a device is timed, and on how many networks its table is validated."""

    rounds: Count = Field(
        20,
        description="Maximum number of rounds of a timing; in a round, every model (an operator or"
        " a network) has one turn.",
    )
    min_rounds: Count = Field(
        8, description="Minimum number of rounds, even if `time_budget_s` is exceeded."
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
            "Stop early when, for 95 % of the models, the half-width of the median's 90 % interval"
            " is below this fraction of the median; 0: never."
        ),
    )
    hot_samples: Annotated[int, Field(ge=2, le=1000)] = Field(
        48,
        description="Number of hot runs of a model in a turn; the time of the fastest one is the"
        " hot latency of the turn.",
    )
    turn_budget_s: Seconds = Field(
        0.05,
        description="Time in seconds after which a turn ends, even with fewer hot runs than"
        " `hot_samples`.",
    )
    warmup_runs: Annotated[int, Field(ge=0, le=1000)] = Field(
        2, description="Number of runs after a model is loaded that are not recorded."
    )
    n_validation: Annotated[int, Field(ge=5, le=10_000)] = Field(
        30,
        description="Number of whole networks that are timed to fit the correction and to measure"
        " the error of estimates.",
    )
    retiming_budget_s: Seconds = Field(
        5.0,
        description="Time limit for timing whole networks again, as in `verify` and re-measurement,"
        " in seconds.",
    )

    force_threads: Annotated[bool, LATER] = Field(
        False,
        description="Time a device that has fewer processors than threads, or a quota below them,"
        " instead of refusing it.",
    )

    @model_validator(mode="after")
    def _check(self) -> ProfileConfig:
        if self.min_rounds > self.rounds:
            raise Invalid(f"at most rounds ({self.rounds})", self.min_rounds, key="min_rounds")
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
