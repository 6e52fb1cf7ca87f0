"""A simulated device whose networks take the sum of their operators."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from hwnas.core.rng import rng
from hwnas.latency.construction import borders, context_id, contexts, op_id
from hwnas.measure.networks import validation_nets
from hwnas.spaces.cost import op_macs
from hwnas.spaces.index import enumerate_ops
from hwnas.spaces.lowering import lower, network_key
from hwnas.spaces.space import Codes, SearchSpace
from tests.kit import FakeMachine, FakeTransport


def additive_machine(
    space: SearchSpace,
    slow: float = 1.0,
    *,
    quirk: float = 0.0,
    nets: Codes | None = None,
    **disturbances: Any,
) -> FakeTransport:
    """A device whose networks take 20 us and the sum of their ops, 10 us and 1 ns per 10 MACs.

    quirk: standard deviation of a factor that every network has of its own. nets: further networks
    that it can time.
    """
    everything = replace(space, allowed=())

    def op_ns(op: Any) -> float:
        return 10_000 + op_macs(op) / 10

    times = {}
    for op in enumerate_ops(everything):
        around = sum(3_000 + 5 * b[0] for b in borders(op) if b is not None) / 2
        times[op_id(op)] = 20_000 + op_ns(op) + around
    for border in contexts(enumerate_ops(everything)):
        times[context_id(border)] = 20_000 + 3_000 + 5 * border[0]

    def machine(plan: dict[str, Any]) -> FakeMachine:
        known = dict(times)
        pool = np.concatenate(
            [validation_nets(space, n, seed=0) for n in (5, 12, 30)]
            + [space.sample(40, rng=rng(5, "extra"))]
            + ([] if nets is None else [nets])
        )
        for row in pool:
            arch = space.arch(row)
            total = 20_000 + sum(op_ns(op) for op in lower(space, arch))
            key = network_key(space, arch)
            factor = 1 + quirk * rng(0, "quirk", key).standard_normal()
            known[f"net-{key}"] = total * factor
        known |= {i["id"]: 123_000.0 for i in plan["items"] if i["id"] not in known}
        return FakeMachine({k: v * slow for k, v in known.items()}, **disturbances)

    return FakeTransport(machine)
