"""Combines the standardised score and the costs of an arch into one reward.

With z the standardised score, r = cost / limit of each constraint, w = `weight` and v =
`excess_weight`, summed over constraints:

    hard         z if every r <= 1, else a floor below every score, minus sum(max(r - 1, 0))
    additive     z - w * sum(r)          - v * sum(max(r - 1, 0))      WPNAS 2203.02086, ours
    exponent     z - w * sum(log r)      - v * sum(max(log r, 0))      MnasNet 1807.11626, sec. 3
    log_barrier  z + w * sum(log(1 - r)) - v * sum(max(r - 1, 0))

`exponent` is MnasNet's product acc * r^alpha (r <= 1) or acc * r^beta (r > 1) in logarithms, with z
for log acc, alpha = -w and beta = -(w + v). `log_barrier` is continued linearly from
`BARRIER_SLACK` before the limit, so that infeasible archs have a finite, decreasing reward.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from hwnas.core.config import StrictModel
from hwnas.interfaces import FloatArray

__all__ = ["RewardConfig", "reward"]

HARD_FLOOR = -4.0
"""With form `hard`, the reward of a barely infeasible arch; scores below -3 are raised to -3.

Measured on scores that are sums over choices: with -10, the drop at the limit dominates the score,
and the policy only learns to avoid the drop.
"""

BARRIER_SLACK = 0.01


class RewardConfig(StrictModel):
    """Form and weights of the reward. Weights: standard deviations of the score per cost / limit.

    `weight` applies to the whole cost, `excess_weight` only to the part above a limit.
    `excess_weight` must exceed what the score gains above the limit. Otherwise, the policy settles
    on archs that exceed it.
    Measured on accuracies of OFA and a measured table, with a limit of 0.40 of the largest arch:
    the latency of the policy's mode is 1.31 times the limit with 5, and 0.997 times the limit with
    10 and 20 (one seed). On synthetic latencies, 5 and 10 give equal results, and with 20 or more
    the mode stays 5 to 9 % below the limit.
    """

    form: Literal["hard", "additive", "exponent", "log_barrier"] = "exponent"
    """How score and costs are combined into the reward; see docs/search.md."""
    weight: Annotated[float, Field(ge=0, le=1e6)] = 0.1
    """Weight of the cost in the reward, in standard deviations of the score per unit of cost /
    limit.
    """
    excess_weight: Annotated[float, Field(ge=0, le=1e6)] = 10.0
    """Additional weight of the part of the cost above a limit, in standard deviations of the score
    per unit of cost / limit.
    """


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
