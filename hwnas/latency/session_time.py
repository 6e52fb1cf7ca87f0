"""Estimates how long a timing session takes, as if the device were as fast as this machine."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from hwnas.core.speed import busyness
from hwnas.interfaces import FloatArray
from hwnas.latency.construction import context_id, contexts, op_id
from hwnas.latency.sections import ProfileConfig
from hwnas.spaces.cost import cost, op_macs
from hwnas.spaces.index import enumerate_ops
from hwnas.spaces.space import SearchSpace

__all__ = ["profile_s", "session_s"]

START_S = 1.5  # seconds to start the kit and to write the results
PER_MAC_S = 1e-10  # default for one idle thread, if it was not measured
RUNTIME_SHARE = 0.6  # time in a runtime / time in torch
LAUNCH_S, LOAD_S = 2e-5, 0.014  # per run of an operator; to build and load its model


def session_s(
    macs: FloatArray, config: ProfileConfig, *, n_more: int = 0, per_mac_s: float | None = None
) -> float:
    """Seconds of a session: building and loading all models, and their turns within the budget.

    Args:
        macs: multiply-accumulates of each model.
        config: rounds, budget and length of the turns.
        n_more: number of further models, as expensive as these are on average.
        per_mac_s: seconds per multiply-accumulate in torch on this machine now; None: unknown.
    """
    n_models, busy = len(macs) + n_more, busyness()
    per_mac_s = PER_MAC_S * busy if per_mac_s is None else per_mac_s
    runs = np.asarray(macs, dtype=np.float64) * per_mac_s * RUNTIME_SHARE + LAUNCH_S * busy
    turns = np.minimum((1 + config.hot_samples) * runs, config.turn_budget_s + runs)
    a_round = float(turns.mean()) * n_models
    timing = min(config.time_budget_s, config.rounds * a_round)
    started = (START_S + n_models * LOAD_S) * busy
    return started + max(timing, config.min_rounds * a_round)


def profile_s(
    space: SearchSpace,
    config: ProfileConfig,
    *,
    known: Collection[str] = frozenset(),
    per_mac_s: float | None = None,
) -> float:
    """Seconds of `session_s` for a table of a space: operators, their contexts, whole networks.

    known: names of models that earlier sessions have timed.
    """
    ops = enumerate_ops(space)
    half = float(cost(space, space.codes([space.largest()]), "macs")[0]) / 2
    new = [op_macs(op) for op in ops if op_id(op) not in known]
    macs = np.array([*new, *[half] * config.n_validation], dtype=np.float64)
    n_contexts = len({context_id(border) for border in contexts(ops)} - set(known))
    return session_s(macs, config, n_more=n_contexts, per_mac_s=per_mac_s)
