"""Combines the standardised score and the costs of an arch into one reward.

With z the standardised score, r = cost / limit of each constraint, w = `weight` and v =
`excess_weight`, summed over constraints:

    hard         z where every r <= 1, else a floor below every score, minus sum(max(r - 1, 0))
    additive     z - w * sum(r)          - v * sum(max(r - 1, 0))      WPNAS 2203.02086, ours
    exponent     z - w * sum(log r)      - v * sum(max(log r, 0))      MnasNet 1807.11626, sec. 3
    log_barrier  z + w * sum(log(1 - r)) - v * sum(max(r - 1, 0))

`exponent` is MnasNet's product acc * r^alpha (r <= 1) or acc * r^beta (r > 1) in logs, z standing
for log acc: alpha = -w, beta = -(w + v). `log_barrier` goes on linearly from `BARRIER_SLACK` before
the limit, so that infeasible archs still have a finite, falling reward.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from hwnas.core.config import StrictModel
from hwnas.interfaces import FloatArray

__all__ = ["RewardConfig", "reward"]

HARD_FLOOR = -4.0
"""Reward of a barely infeasible arch under `hard`; scores below -3 spreads are lifted to -3.

Measured on separable scores: at -10 the cliff drowns the score, and the policy learns only to flee.
"""

BARRIER_SLACK = 0.01


class RewardConfig(StrictModel):
    """Form and weights of the reward; weights are in spreads of the score per unit of cost ratio.

    `weight` prices cost everywhere, `excess_weight` only what is above a limit: it must exceed what
    the score gains there, or the policy settles beyond the limit. Measured on OFA's accuracies and
    a real table at 0.40 of the largest: with 5 the mode takes 1.31 of the limit, with 10 and 20
    0.997 (one seed; on made-up latencies 5 and 10 are alike, 20 and more stay 5 to 9 % below).
    """

    form: Literal["hard", "additive", "exponent", "log_barrier"] = "exponent"
    """How score and cost become one reward; see docs/search.md."""
    weight: Annotated[float, Field(ge=0, le=1e6)] = 0.1
    """Price of cost everywhere, in spreads of the score per unit of cost / limit."""
    excess_weight: Annotated[float, Field(ge=0, le=1e6)] = 10.0
    """Price of what is above a limit, in the same unit."""


def reward(config: RewardConfig, z: FloatArray, ratios: FloatArray) -> FloatArray:
    """Rewards [n] of standardised scores [n] and cost ratios [n, k] (cost / limit, > 0)."""
    excess = np.maximum(ratios - 1, 0).sum(axis=1)
    if config.form == "hard":
        feasible = (ratios <= 1).all(axis=1)
        return np.where(feasible, np.maximum(z, HARD_FLOOR + 1), HARD_FLOOR - excess)
    if config.form == "additive":
        price = ratios.sum(axis=1)
    elif config.form == "exponent":
        price = np.log(ratios).sum(axis=1)
        excess = np.maximum(np.log(ratios), 0).sum(axis=1)
    else:
        slack = 1 - ratios
        beyond = np.log(BARRIER_SLACK) + slack / BARRIER_SLACK - 1  # the tangent at BARRIER_SLACK
        inside = np.log(np.maximum(slack, BARRIER_SLACK))
        price = -np.where(slack < BARRIER_SLACK, beyond, inside).sum(axis=1)
    return np.asarray(z - config.weight * price - config.excess_weight * excess)
