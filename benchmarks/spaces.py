"""Seconds for 100,000 archs of every space, and for pricing 1,000,000 with a table.

    python benchmarks/spaces.py

Prints JSON: processor seconds on one core for sampling, mutating, validating, encoding and costing
(MACs and parameters) 100,000 archs, and for the table sums of 1,000,000. Nothing to compare with
runs at this speed: the FLOPs model of the `ofa` package prices 960 archs/s (peers.md, section 4).
"""

from __future__ import annotations

import json
import time

from hwnas.core.rng import rng
from hwnas.spaces import REGISTRY
from hwnas.spaces.cost import cost
from hwnas.spaces.index import enumerate_ops, op_sum
from hwnas.spaces.load import build_space


def measure(name: str) -> dict[str, float]:
    """Processor seconds for one space."""
    begin = time.process_time()
    space = build_space(name, num_classes=1000)
    n_ops = len(enumerate_ops(space))
    tables_s = time.process_time() - begin
    ends = space.codes([space.smallest(), space.largest()])
    cost(space, ends, "macs"), cost(space, ends, "params")
    random = rng(0, "benchmarks/spaces")
    begin = time.process_time()
    codes = space.mutate(space.sample(100_000, rng=random), random)
    assert space.validate(codes).all()
    space.encode(codes)
    cost(space, codes, "macs")
    cost(space, codes, "params")
    archs_s = time.process_time() - begin
    many = space.sample(1_000_000, rng=random)
    prices = random.random(n_ops)
    begin = time.process_time()
    op_sum(space, many, prices)
    return {
        "n_ops": n_ops,
        "build_tables_s": round(tables_s, 3),
        "handle_100k_s": round(archs_s, 3),
        "price_1m_s": round(time.process_time() - begin, 3),
    }


if __name__ == "__main__":
    names = [name for name in REGISTRY.names if name != "mobile"]
    print(json.dumps({name: measure(name) for name in names}, indent=1))
