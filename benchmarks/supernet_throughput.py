"""Images per second of the sandwich step: ours and the same loop over the `ofa` package.

    python benchmarks/supernet_throughput.py --rounds 8           1 thread, 2 processes x 1 thread
    python benchmarks/supernet_throughput.py --device cuda --batch 128 --px 224   bf16, one GPU

The contenders of `supernet_step.py`: four forward and backward passes (largest, smallest, two
drawn) of `mobilenet_v3`; OFA's as its trainer feeds them, and with channels_last images, which suit
it better. Two processes, joined by gloo, have a batch each and end every step in one all-reduce of
the mean gradient, the same function for all. Every round runs all contenders in random order, so
that they meet the same moments of a shared machine; a ratio is the median over rounds of ours /
theirs. One process is timed by its processor time (on a GPU by the clock), two by the clock, from
when both are ready until both are done; `ratio_to_ofa_2_cpu` is by their processor times. An image
counts once however many networks see it. Seconds are kept in --cells, one file per number of
processes; a run that was cut off goes on. Install `ofa` as `supernet_step.py` says.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from supernet_step import Step, Steps

from hwnas.core.env import host_facts
from hwnas.core.errors import UserError
from hwnas.core.rng import rng
from hwnas.core.store import read_json, write_json
from hwnas.training.distributed import ALONE, Ranks
from hwnas.training.precision import Precision, pick_device

NAMES = ("supernet", "ofa", "ofa_channels_last")
WARM_UP = 1
Seconds = dict[str, list[list[float]]]
"""Clock and processor seconds of every round, by contender."""


def measure(options: argparse.Namespace, ranks: Ranks) -> Seconds:
    """Time all contenders on this process."""
    torch.set_num_threads(1)
    precision = Precision.of(options.precision, pick_device(options.device))
    steps = Steps(options.batch, options.px, options.seed, precision=precision, ranks=ranks)
    runs = {name: getattr(steps, name)() for name in NAMES}
    order = rng(options.seed, "benchmark/order")  # the same on all processes
    found: Seconds = {name: [] for name in NAMES}
    for turn in range(options.rounds + WARM_UP):
        for name in order.permutation(NAMES):
            seconds = timed(runs[name], precision.device, ranks)
            if turn >= WARM_UP:
                found[name].append(seconds)
        if ranks.leads:
            print(f"round {turn} of {options.rounds}", file=sys.stderr, flush=True)
    return found


def timed(step: Step, device: torch.device, ranks: Ranks) -> list[float]:
    """Clock and processor seconds of one step, of all processes together."""
    if ranks.size > 1:
        dist.barrier()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    clock, cpu = time.perf_counter(), time.process_time()
    step()
    cpu = time.process_time() - cpu
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    if ranks.size > 1:
        dist.barrier()
    return [time.perf_counter() - clock, cpu]


def one_of_many(rank: int, size: int, folder: str, options: argparse.Namespace) -> None:
    """What each process of several does."""
    store = dist.FileStore(f"{folder}/store", size)
    ranks = Ranks(rank, size, store)
    with ranks.group():
        write_json(Path(folder) / f"{rank}.json", measure(options, ranks))


def together(size: int, options: argparse.Namespace) -> Seconds:
    """Clock seconds of the first process, mean processor seconds of all."""
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(one_of_many, (size, folder, options), nprocs=size)
        each = [read_json(Path(folder) / f"{rank}.json") for rank in range(size)]
    cpu = np.mean([[np.array(found[name])[:, 1] for name in NAMES] for found in each], axis=0)
    return {
        name: np.stack([np.array(each[0][name])[:, 0], cpu[i]], axis=1).tolist()
        for i, name in enumerate(NAMES)
    }


def known(size: int, options: argparse.Namespace) -> Seconds:
    """What `size` processes take: measured, or kept from before."""
    keys = ("device", "precision", "batch", "px", "rounds", "seed")
    name = "-".join(str(vars(options)[key]) for key in keys)
    path = options.cells / f"{name}-{size}.json" if options.cells else None
    if path is not None and path.exists():
        found: Seconds = read_json(path)
        return found
    found = measure(options, ALONE) if size == 1 else together(size, options)
    if path is not None:
        write_json(path, found)
    return found


def summary(found: Seconds, column: int, n_images: int, suffix: str) -> dict[str, object]:
    """Images per second (medians), and ratios of ours to the others', with their spread."""
    seconds = {name: np.array(values)[:, column] for name, values in found.items()}
    row: dict[str, object] = {
        f"images_per_s_{suffix}": {
            name: round(float(n_images / np.median(values)), 2) for name, values in seconds.items()
        }
    }
    for other in NAMES[1:]:
        pairs = seconds[other] / seconds["supernet"]
        row[f"ratio_to_{other}_{suffix}"] = round(float(np.median(pairs)), 3)
        low_high = np.quantile(pairs, [0.1, 0.9])
        row[f"ratio_to_{other}_{suffix}_p10_p90"] = [round(float(q), 3) for q in low_high]
    return row


def main() -> None:
    """Parse options, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--batch", type=int, default=16, help="images per process")
    parser.add_argument("--px", type=int, default=96)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--precision", choices=["fp32", "bf16"], help="bf16 on cuda, else fp32")
    parser.add_argument("--cells", type=Path, help="folder that keeps what was measured")
    parser.add_argument("--processes", type=int, nargs="*", choices=[1, 2], help="1 2; on cuda 1")
    options = parser.parse_args()
    on_gpu = options.device == "cuda"
    options.precision = options.precision or ("bf16" if on_gpu else "fp32")
    result: dict[str, object] = {
        "benchmark": "supernet_throughput",
        "space": "mobilenet_v3",
        **{key: vars(options)[key] for key in ("device", "precision", "batch", "px", "rounds")},
    }
    try:
        for size in options.processes or ([1] if on_gpu else [1, 2]):
            n_images = size * options.batch
            found = known(size, options)
            if size == 1:
                result |= summary(found, 0 if on_gpu else 1, n_images, "1")
            else:
                result |= summary(found, 0, n_images, "2")
                result |= summary(found, 1, n_images, "2_cpu")
    except UserError as error:
        sys.exit(str(error))
    result["host"] = host_facts()
    if on_gpu:
        result["gpu"] = torch.cuda.get_device_name()
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
