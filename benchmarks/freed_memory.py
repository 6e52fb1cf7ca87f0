"""What keeping freed memory saves (`hwnas.core.memory`), in processes that run by turns.

    python benchmarks/freed_memory.py --rounds 3

Per case, processes that keep freed memory and processes that do not each repeat it: `step` is a
gradient step of the largest and the smallest subnet of a supernet of `mobilenet_v3`, `logits` the
largest network without gradients. Prints JSON: median seconds of a repetition, of these in the
system (page faults), and peak memory, by case and kind of process, and the ratios of the medians.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from typing import Any

from hwnas.core.env import host_facts

CASES = {"step": ("step", 96, 32), "logits": ("logits", 224, 64)}
"""Kind, px, images."""
N_REPEATED = 3


def repeated(kind: str, px: int, n: int, *, keeps: bool) -> dict[str, float]:
    """Seconds of one of `N_REPEATED` repetitions in this process, and its peak memory in MB."""
    import torch

    from hwnas.core.memory import keep_freed_memory
    from hwnas.nets.subnet import build_subnet
    from hwnas.nets.supernet import Supernet
    from hwnas.spaces.load import build_space

    torch.set_num_threads(1)
    if keeps:
        keep_freed_memory()
    space = build_space("mobilenet_v3", {"resolutions": [px]}, num_classes=50)
    supernet, largest = Supernet(space, seed=0), build_subnet(space, space.largest()).eval()
    x = torch.randn(n, 3, px, px)

    def run() -> None:
        if kind == "step":
            for arch in (space.largest(), space.smallest()):
                supernet(x, arch).square().mean().backward()
        else:
            with torch.no_grad():
                largest(x)

    run()
    start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF)
    for _ in range(N_REPEATED):
        run()
    after = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "s": (time.monotonic() - start) / N_REPEATED,
        "system_s": (after.ru_stime - before.ru_stime) / N_REPEATED,
        "peak_mb": after.ru_maxrss / 1024,
    }


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", nargs=2, metavar=("CASE", "KIND"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        case, kind = options.one
        print(json.dumps(repeated(*CASES[case], keeps=kind == "keeps")))
        return
    rows: dict[str, Any] = {}
    for case in CASES:
        found: dict[str, list[dict[str, float]]] = {"keeps": [], "returns": []}
        for _ in range(options.rounds):
            for kind, seen in found.items():
                command = [sys.executable, __file__, "--one", case, kind]
                seen.append(json.loads(subprocess.check_output(command, text=True)))
        rows[case] = {
            kind: {key: round(statistics.median(one[key] for one in seen), 3) for key in seen[0]}
            for kind, seen in found.items()
        }
        rows[case]["ratio"] = round(rows[case]["keeps"]["s"] / rows[case]["returns"]["s"], 3)
    print(json.dumps({"benchmark": "freed_memory", "cases": rows, "host": host_facts()}, indent=1))


if __name__ == "__main__":
    main()
