"""What weight sharing costs: the sandwich step against the same subnets trained on their own.

    python benchmarks/supernet_step.py --rounds 20

Interleaved pairs on one thread: per round, four forward and backward passes through the supernet
and through four extracted subnets of the same archs, in random order. Prints JSON; only the ratio
means something on a shared machine, since both sides of a pair meet the same moment of it.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
import torch

from hwnas.core.env import host_facts
from hwnas.core.rng import rng
from hwnas.nets.extract import extract
from hwnas.nets.supernet import Supernet
from hwnas.spaces.lowering import lower
from hwnas.spaces.mobilenet_tiny import Config, build
from hwnas.training.losses import soft_cross_entropy


def main() -> None:
    """Parse options, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--resolutions", type=int, nargs="+", default=[16, 20, 24])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    space = build(Config(resolutions=tuple(options.resolutions)), num_classes=10)
    drawn = space.sample(rng(options.seed, "benchmark/archs"), 2)
    archs = [space.largest(), space.smallest(), *(space.arch(row) for row in drawn)]
    supernet = Supernet(space, seed=options.seed)
    alone = [extract(supernet, arch).train() for arch in archs]
    generator = torch.Generator().manual_seed(options.seed)
    images = [
        torch.randn(
            options.batch, 3, *(2 * (lower(space, arch)[0].in_hw,)), generator=generator
        ).contiguous(memory_format=torch.channels_last)
        for arch in archs
    ]
    target = torch.randn(options.batch, 10, generator=generator)

    def shared_step() -> None:
        for arch, x in zip(archs, images, strict=True):
            soft_cross_entropy(supernet(x, arch), target).backward()

    def separate_step() -> None:
        for net, x in zip(alone, images, strict=True):
            soft_cross_entropy(net(x), target).backward()

    steps = {"supernet": shared_step, "separate": separate_step}
    order = rng(options.seed, "benchmark/order")
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for warm in range(options.rounds + 2):
        for name in order.permutation(list(steps)):
            begin = time.perf_counter()
            steps[name]()
            if warm >= 2:
                seconds[name].append(time.perf_counter() - begin)
    pairs = np.array(seconds["supernet"]) / np.array(seconds["separate"])
    print(
        json.dumps(
            {
                "benchmark": "supernet_step",
                "space": space.id,
                "batch": options.batch,
                "rounds": options.rounds,
                "ratio_to_extracted": round(float(np.median(pairs)), 4),
                "ratio_p10_p90": [round(float(q), 4) for q in np.quantile(pairs, [0.1, 0.9])],
                "supernet_s": round(float(np.median(seconds["supernet"])), 4),
                "separate_s": round(float(np.median(seconds["separate"])), 4),
                "host": host_facts(),
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
