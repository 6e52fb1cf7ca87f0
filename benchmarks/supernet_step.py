"""What weight sharing costs: the sandwich step against OFA's, and against the same subnets alone.

    python benchmarks/supernet_step.py --rounds 10
    python benchmarks/supernet_step.py --space mobilenet_v4 --rounds 10

Four forward and backward passes (largest, smallest, two drawn) at 96 px, batch 16, on one thread:
through the supernet of `mobilenet_v3` (or another space, then without `ofa`), through the modules
of the `ofa` package in the same loop (as its trainer feeds them, and with channels_last images,
which suits them better), and through four extracted subnets trained on their own. Every round runs
all of them in random order, so that they meet the same moments of a shared machine; ratios are
medians over rounds of CPU time. Also prints the time of an extraction and, from processes of their
own, the peak memory of a step.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from hwnas.core.env import host_facts
from hwnas.core.errors import UserError
from hwnas.core.rng import rng
from hwnas.nets.extract import extract
from hwnas.nets.supernet import Supernet
from hwnas.spaces.arch import Arch
from hwnas.spaces.load import build_space
from hwnas.spaces.space import SearchSpace
from hwnas.training.distributed import ALONE, Ranks
from hwnas.training.losses import soft_cross_entropy
from hwnas.training.precision import FULL, Precision
from hwnas.training.sandwich import Starts, subnet_logits

N_CLASSES = 1000
WARM_UP = 1
INSTALL = (
    "pip install --no-deps ofa==0.1.0.post202307202001 && pip install pillow pyyaml tqdm gdown"
    " (in an environment of its own, with hwnas), or --without-ofa"
)
Step = Callable[[], None]


class Steps:
    """The contenders, made when asked for, each a function that runs one step.

    With `ranks` every step ends in the mean of the gradients of several processes.
    """

    def __init__(
        self,
        batch: int,
        px: int,
        seed: int,
        *,
        precision: Precision = FULL,
        ranks: Ranks = ALONE,
        space: str = "mobilenet_v3",
    ) -> None:
        self.seed, self.precision, self.ranks = seed, precision, ranks
        self.space = build_space(space, {"resolutions": [px]}, num_classes=N_CLASSES)
        drawn = self.space.sample(2, rng=rng(seed, "benchmark/archs"))
        self.archs = [
            self.space.largest(),
            self.space.smallest(),
            *(self.space.arch(row) for row in drawn),
        ]
        generator = torch.Generator().manual_seed(seed + ranks.rank)
        self.x = torch.randn(batch, 3, px, px, generator=generator).to(precision.device)
        self.target = torch.randn(batch, N_CLASSES, generator=generator).to(precision.device)

    def supernet(self) -> Step:
        """Ours."""
        net = Supernet(self.space, seed=self.seed)
        if self.precision.device.type != "cpu":
            net.to(self.precision.device, memory_format=torch.channels_last)

        def step() -> None:
            net.zero_grad(set_to_none=True)
            starts = Starts(net, self.x, self.archs, self.precision)
            for arch in self.archs:
                logits = subnet_logits(
                    net, self.x, arch, precision=self.precision, start=starts.of(arch)
                )
                soft_cross_entropy(logits, self.target).backward()
                starts.after(arch)
            self.ranks.average(net.parameters(), [])

        return step

    def separate(self) -> Step:
        """Our subnets alone, with the layout that suits them."""
        supernet = Supernet(self.space, seed=self.seed)
        nets = torch.nn.ModuleList(extract(supernet, arch) for arch in self.archs).train()
        return self._step(nets, list(nets), channels_last=True)

    def ofa(self, *, channels_last: bool = False) -> Step:
        """The modules of the `ofa` package, with the same archs."""
        try:
            from ofa.imagenet_classification.elastic_nn.modules.dynamic_op import (
                DynamicSeparableConv2d,
            )
            from ofa.imagenet_classification.elastic_nn.networks import OFAMobileNetV3
        except ImportError as error:
            raise UserError("the ofa package is missing", found=str(error), fix=INSTALL) from error
        DynamicSeparableConv2d.KERNEL_TRANSFORM_MODE = 1
        net = OFAMobileNetV3(
            dropout_rate=0, ks_list=[3, 5, 7], expand_ratio_list=[3, 4, 6], depth_list=[2, 3, 4]
        ).train()

        def run(x: torch.Tensor, arch: Arch) -> torch.Tensor:
            net.set_active_subnet(**_ofa_settings(self.space, arch))
            logits: torch.Tensor = net(x)
            return logits

        calls = [lambda x, arch=arch: run(x, arch) for arch in self.archs]
        return self._step(net, calls, channels_last=channels_last)

    def ofa_channels_last(self) -> Step:
        """OFA with images whose layout suits its convolutions."""
        return self.ofa(channels_last=True)

    def _step(
        self,
        net: torch.nn.Module,
        calls: Sequence[Callable[..., torch.Tensor]],
        *,
        channels_last: bool = False,
    ) -> Step:
        layout = torch.channels_last if channels_last else torch.contiguous_format
        x = self.x.contiguous(memory_format=layout)
        if self.precision.device.type != "cpu":
            net.to(self.precision.device, memory_format=layout)

        def step() -> None:
            net.zero_grad(set_to_none=True)
            for call in calls:
                with self.precision.autocast():
                    logits = call(x)
                soft_cross_entropy(logits.float(), self.target).backward()
            self.ranks.average(net.parameters(), [])

        return step


def main() -> None:
    """Parse options, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--px", type=int, default=96)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--space", default="mobilenet_v3")
    parser.add_argument("--without-ofa", action="store_true")
    parser.add_argument("--peak-memory-of", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    steps = Steps(options.batch, options.px, options.seed, space=options.space)
    if options.peak_memory_of:
        getattr(steps, options.peak_memory_of)()()
        status = Path("/proc/self/status").read_text()  # unlike ru_maxrss, of this program alone
        print(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
        return
    names = ["supernet", "separate"]
    if options.space == "mobilenet_v3" and not options.without_ofa:
        names += ["ofa", "ofa_channels_last"]
    try:
        seconds = _interleaved({name: getattr(steps, name)() for name in names}, options)
    except UserError as error:
        sys.exit(str(error))
    peaks = {
        name: _peak_memory_mb(name, options.space) for name in names if name != "ofa_channels_last"
    }
    result = {
        "benchmark": "supernet_step",
        "space": steps.space.id,
        "batch": options.batch,
        "px": options.px,
        "rounds": options.rounds,
        **_ratios(seconds),
        "cpu_s": {name: round(float(np.median(values)), 4) for name, values in seconds.items()},
        "extract_ms": _extract_ms(steps),
        "peak_memory_mb": peaks,
        "host": host_facts(),
    }
    print(json.dumps(result, indent=1))


def _interleaved(steps: dict[str, Step], options: argparse.Namespace) -> dict[str, list[float]]:
    """CPU seconds of every step in every round."""
    order = rng(options.seed, "benchmark/order")
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(options.rounds + WARM_UP):
        for name in order.permutation(list(steps)):
            begin = time.process_time()
            steps[name]()
            if turn >= WARM_UP:
                seconds[name].append(time.process_time() - begin)
    return seconds


def _ratios(seconds: dict[str, list[float]]) -> dict[str, object]:
    """Median ratio of the supernet to each of the others, and its spread."""
    names = {
        "separate": "ratio_to_extracted",
        "ofa": "ratio_to_ofa",
        "ofa_channels_last": "ratio_to_ofa_channels_last",
    }
    found: dict[str, object] = {}
    for other, name in names.items():
        if other in seconds:
            pairs = np.array(seconds["supernet"]) / np.array(seconds[other])
            found[name] = round(float(np.median(pairs)), 4)
            found[f"{name}_p10_p90"] = [round(float(q), 4) for q in np.quantile(pairs, [0.1, 0.9])]
    return found


def _extract_ms(steps: Steps) -> dict[str, float]:
    """Median milliseconds of CPU time that extraction takes, largest and smallest."""
    supernet = Supernet(steps.space, seed=steps.seed)
    found = {}
    for name, arch in zip(("largest", "smallest"), steps.archs[:2], strict=True):
        values = []
        for _ in range(11):
            begin = time.process_time()
            extract(supernet, arch)
            values.append(time.process_time() - begin)
        found[name] = round(1e3 * float(np.median(values)), 1)
    return found


def _peak_memory_mb(name: str, space: str) -> int:
    """Peak resident memory of a process that runs one step."""
    command = [sys.executable, __file__, "--peak-memory-of", name, "--space", space]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return int(output.split()[-1]) // 1024


def _ofa_settings(space: SearchSpace, arch: Arch) -> dict[str, list[int]]:
    """Kernels and expansions of 20 blocks, depths of 5 stages; 3 where a block is absent."""
    view = space.view(arch)
    blocks = [f"stage{stage}.block{block}" for stage in range(1, 6) for block in range(4)]
    return {
        "ks": [int(view.get(f"{block}.kernel", 3)) for block in blocks],
        "e": [int(view.get(f"{block}.expand", 3)) for block in blocks],
        "d": [int(view[f"stage{stage}.depth"]) for stage in range(1, 6)],
    }


if __name__ == "__main__":
    main()
