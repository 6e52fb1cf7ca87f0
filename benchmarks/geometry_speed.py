"""What handling archs costs against another checkout of hwnas, in rounds that alternate.

    python benchmarks/geometry_speed.py BASE_CHECKOUT --rounds 24

Every round runs both checkouts, in random order, each in a process of its own, and takes the
processor time of each task, summed over the spaces: building the tables of a space (cold), lowering
2,000 archs, and sampling, costing (MACs) and indexing 20,000. With `--step` also the sandwich step
of a `mobilenet_v3` supernet (64 px, batch 4, four archs), whose geometry is looked up.

Prints JSON: the median of the paired ratios (this checkout / the other one; below 1 is faster), the
90 % interval of that median by bootstrap over rounds, and the processor seconds of both.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np

SPACES = ("mobilenet_v3", "attentive_nas", "fbnet")
HERE = Path(__file__).resolve().parent.parent

WORK = """
import json, sys, time
from hwnas.core.rng import rng
from hwnas.spaces.cost import cost
from hwnas.spaces.index import op_index
from hwnas.spaces.slot_tables import slot_tables
from hwnas.spaces.lowering import lower

try:
    from hwnas.spaces.load import build_space
except ImportError:  # where it was before
    from hwnas.pipeline.spaces import build_space

def draw(space, n, stream):
    try:
        return space.sample(n, rng=stream)
    except TypeError:  # as it was called before
        return space.sample(stream, n)


clock = time.process_time
seconds = {"tables": 0.0, "lower": 0.0, "archs": 0.0}
warm = build_space("mobilenet_tiny", num_classes=10)
op_index(warm, draw(warm, 10, rng(0, "warm")))
for name in sys.argv[1].split(","):
    space = build_space(name, num_classes=10)
    begin = clock()
    slot_tables(space)
    seconds["tables"] += clock() - begin
    archs = [space.arch(row) for row in draw(space, 2000, rng(0, "lower"))]
    begin = clock()
    for arch in archs:
        lower(space, arch)
    seconds["lower"] += clock() - begin
    cost(space, draw(space, 10, rng(0, "warm")), "macs")
    begin = clock()
    for i in range(5):
        codes = draw(space, 20_000, rng(i, "archs"))
        cost(space, codes, "macs")
        op_index(space, codes)
    seconds["archs"] += clock() - begin
print(json.dumps(seconds))
"""

STEP = """
import json, time
import torch
from hwnas.core.rng import rng
from hwnas.nets.supernet import Supernet
from hwnas.spaces.mobilenet_v3 import Config, build

def draw(space, n, stream):
    try:
        return space.sample(n, rng=stream)
    except TypeError:  # as it was called before
        return space.sample(stream, n)


torch.set_num_threads(1)
space = build(Config(resolutions=(64,)), num_classes=100)
net = Supernet(space, seed=0)
rows = draw(space, 2, rng(0, "step"))
archs = [space.largest(), space.smallest(), *map(space.arch, rows)]
x = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
for step in range(8):
    if step == 3:
        begin = time.process_time()
    for arch in archs:
        net(x, arch).square().mean().backward()
print(json.dumps({"step": time.process_time() - begin}))
"""


def run(checkout: Path, script: str) -> dict[str, float]:
    """Processor seconds per task in a fresh process of one checkout."""
    environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script, ",".join(SPACES)],
        cwd=checkout,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    seconds: dict[str, float] = json.loads(done.stdout)
    return seconds


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("base", type=Path, help="the other checkout")
    parser.add_argument("--rounds", type=int, default=24)
    parser.add_argument("--step", action="store_true", help="also a step of the supernet")
    options = parser.parse_args()
    checkouts = {"base": options.base.resolve(), "here": HERE}
    order = random.Random(0)
    rounds = []
    for _ in range(options.rounds):
        names = order.sample(sorted(checkouts), 2)
        seconds = {name: run(checkouts[name], WORK) for name in names}
        if options.step:
            for name in names:
                seconds[name] |= run(checkouts[name], STEP)
        rounds.append(seconds)
    draws = np.random.default_rng(0).integers(len(rounds), size=(2000, len(rounds)))
    report: dict[str, object] = {"spaces": SPACES, "rounds": len(rounds)}
    for task in rounds[0]["here"]:
        here, base = (np.array([r[name][task] for r in rounds]) for name in ("here", "base"))
        ratios = here / base
        low, high = np.quantile(np.median(ratios[draws], axis=1), [0.05, 0.95])
        report[task] = {
            "ratio": round(float(np.median(ratios)), 4),
            "interval_90": [round(float(low), 4), round(float(high), 4)],
            "here_s": round(float(np.median(here)), 4),
            "base_s": round(float(np.median(base)), 4),
        }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
