"""How good a latency table of this machine is: forecasts of unseen subnets beside measurements.

    python benchmarks/latency_table.py --space mobilenet_v3 --resolutions 128,160,192,224

Profiles the device from scratch and prints JSON: `mape`, `p95`, `max` and `kendall_tau` of
forecasts of `--n-validate` subnets by corrections that have not seen them (cross-fitting), the same
of the raw sum and of a line on MACs, `repeat_mape` and `repeat_tau` of the same subnets from two
halves of the rounds (no forecast can look better), `coverage` of the 90 % interval (fitted on one
half of the subnets, checked on the other, ten times), and `seconds` in all.

`without_spill` is the same of corrections without the term for weights that do not fit a cache
(`hwnas.latency.formula`), `within_5_percent` the share of networks (LitePred's measure, NSDI 2024).

    python benchmarks/latency_table.py --space timm --set model=mobilenetv2_100 --set depths=[1,2] \
        --set expands=[3] --set width_ratios=[0.75] --set pad_mode=tf_same --num-classes 10 \
        --resolutions 28,32,40,48 --n-validate 120 --time-budget 200

`--busy N` runs N busy processes beside the profiling and then times as many other subnets in quiet:
`truth` holds the quality of the disturbed table's forecasts against those.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from hwnas.cli.output import progress_for
from hwnas.core.overrides import assignments
from hwnas.core.rng import rng
from hwnas.core.stats import kendall_tau
from hwnas.devices.spec import load_device
from hwnas.latency.estimator import TableEstimator
from hwnas.latency.fitting import MIXTURE, NetworkSums
from hwnas.latency.samples import Timing
from hwnas.latency.sections import ProfileConfig
from hwnas.latency.table import LatencyTable
from hwnas.latency.validation import cross_fit, fit_correction, fit_quality
from hwnas.measure.networks import validation_nets
from hwnas.measure.profile import profile, time_networks
from hwnas.spaces.index import enumerate_ops
from hwnas.spaces.load import build_space
from hwnas.spaces.space import SearchSpace

MAX_ROUNDS = 1000  # the time budget decides
N_SPLITS = 10  # of 60 networks: 300 forecasts
TRUTH_SEED = 10_007  # of the subnets that are timed in quiet: others than the table's own


@contextlib.contextmanager
def busy(n: int) -> Iterator[None]:
    """`n` processes that compute without a pause."""
    loop = "import numpy as np\nx = np.ones((400, 400))\nwhile True: x = (x @ x) / 400"
    processes = [subprocess.Popen([sys.executable, "-c", loop]) for _ in range(n)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def run(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Profile, and compare."""
    device = load_device(args.device)
    px = tuple(int(text) for text in args.resolutions.split(","))
    settings = assignments(args.set) | {"resolutions": list(px)}
    space = build_space(args.space, settings, num_classes=args.num_classes)
    config = ProfileConfig(
        n_validation=args.n_validate, time_budget_s=args.time_budget, rounds=MAX_ROUNDS
    )
    begin = time.monotonic()
    with busy(args.busy):
        table = profile(
            space,
            device,
            folder / "table",
            config,
            seed=args.seed,
            progress=progress_for("profile"),
        )
    seconds = time.monotonic() - begin
    if args.out:
        table.save(args.out)
    correction = table.corrections[space.id]
    validation = correction.validation
    result: dict[str, Any] = {
        "space": space.name,
        "resolutions": px,
        "device": device.name,
        "seed": args.seed,
        "n_ops": len(enumerate_ops(space)),
        "n_nets": len(validation.nets),
        "rounds": table.facts["rounds"],
        "seconds": round(seconds, 1),
        **quality_of(table, space),
        "repeat_mape": validation.repeat_mape,
        "repeat_tau": validation.repeat_tau,
        "raw_sum": asdict(validation.raw_sum),
        "macs_line": asdict(validation.macs_line),
        "forest": asdict(validation.forest) if validation.forest else None,
        "interval_fraction": correction.interval_fraction,
        "coverage": coverage(table, space, seed=args.seed),
        "coefficients": correction.coefficients,
        "spill": correction.spill and asdict(correction.spill),
        "warnings": len(table.warnings),
        "busy": args.busy,
    }
    if args.busy:
        result["truth"] = truth(space, args, folder, TableEstimator(table, space), config)
    return result


def quality_of(table: LatencyTable, space: SearchSpace) -> dict[str, Any]:
    """Errors of forecasts by cross-fitting, and of those without spilled weights."""
    nets = table.corrections[space.id].validation.nets
    measured = np.array([net.measured_ms for net in nets])
    codes = np.array([net.codes for net in nets], dtype=np.int16)
    once = table.corrections[space.id].repeats_once
    sums = NetworkSums(table.rows, space, codes, once)
    without = cross_fit(sums, measured, form=MIXTURE)
    return {
        **asdict(table.corrections[space.id].validation.forecast),
        "without_spill": asdict(fit_quality(without, measured)),
    }


def coverage(table: LatencyTable, space: SearchSpace, *, seed: int) -> float:
    """Share of networks within the interval of a correction that was fitted on half of the others.

    Pooled over `N_SPLITS` random halvings of the table's networks.
    """
    nets = table.corrections[space.id].validation.nets
    codes = np.array([net.codes for net in nets], dtype=np.int16)
    ms = np.array([net.measured_ms for net in nets])
    inside = []
    for split in range(N_SPLITS):
        order = rng(seed, "benchmark/coverage", split).permutation(len(nets))
        fitted, unseen = order[: len(nets) // 2], order[len(nets) // 2 :]
        timings = [Timing(m, m, m, m, 1) for m in ms[fitted]]
        halves = (ms[fitted], ms[fitted])
        half = fit_correction(table.rows, space, codes[fitted], timings, halves)
        estimator = TableEstimator(replace(table, corrections={space.id: half}), space)
        low, high = estimator.interval_ms(codes[unseen]).T
        inside.append((low <= ms[unseen]) & (ms[unseen] <= high))
    return float(np.mean(inside))


def truth(
    space: SearchSpace,
    args: argparse.Namespace,
    folder: Path,
    estimator: TableEstimator,
    config: ProfileConfig,
) -> dict[str, Any]:
    """Forecasts against other subnets, timed in quiet after the busy processes are gone."""
    nets = validation_nets(space, args.n_validate, seed=TRUTH_SEED + args.seed)
    quiet = config.model_copy(update={"time_budget_s": args.time_budget / 3})
    measured = time_networks(
        space,
        nets,
        estimator.device,
        folder / "truth",
        quiet,
        seed=args.seed,
        progress=progress_for("truth"),
    )
    ms = np.array([timing.median_ms for timing in measured.timings])
    low, high = estimator.interval_ms(nets).T
    return {
        **asdict(fit_quality(estimator.latency_ms(nets), ms)),
        "repeat_mape": fit_quality(*measured.halves).mape,
        "repeat_tau": kendall_tau(*measured.halves),
        "coverage": float(np.mean((low <= ms) & (ms <= high))),
        "n_nets": len(nets),
    }


def main() -> None:
    """Parse the command line and print the result."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--space", default="mobilenet_v3")
    parser.add_argument("--device", default="local")
    parser.add_argument("--resolutions", default="128,160,192,224", help="px, comma-separated")
    parser.add_argument("--set", action="append", default=[], help="KEY=VALUE of the space")
    parser.add_argument("--num-classes", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--n-validate", type=int, default=60)
    parser.add_argument("--time-budget", type=float, default=780.0, help="s of timing")
    parser.add_argument("--busy", type=int, default=0, help="busy processes beside the profiling")
    parser.add_argument("--out", type=Path, help="keep the table here")
    parser.add_argument("--work", type=Path, help="folder to resume in; a temporary one otherwise")
    parser.add_argument("--format", choices=["json"], default="json")
    args = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = args.work or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        print(json.dumps(run(args, folder), indent=1))


if __name__ == "__main__":
    main()
