"""Latency tables through LiteRT beside one through ONNX Runtime: forecasts of unseen networks.

    python benchmarks/litert_tables.py --work /tmp/litert_tables

Profiles `mobilenet_v3` at 160 px on `local`, `local_litert` and `local_litert_int8` in slices by
turns, so that all three see the same phases of the machine, and prints JSON. Per device: `mape` and
`kendall_tau` of forecasts of `--n-validate` networks by corrections that have not seen them
(cross-fitting), its 95 % bootstrap interval over networks, and `repeat_mape`, by which two halves
of the rounds differ; `bar` is what `mape` is held to, 1.5 % in fp32 and 1.0 % in 8 bits, or, on a
machine whose repeat noise exceeds 0.8 %, that noise and 0.7 %. Against ONNX Runtime: the ratio of
latencies of the networks (10th, 50th and 90th percentile) and of the rows of the table, and
`mape_difference` with its paired interval.

`--work` keeps the tables and resumes: slices that are there are not timed again, and a longer
`--time-budget` goes on.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from hwnas.cli.output import progress_for
from hwnas.core.rng import rng
from hwnas.devices.spec import load_device
from hwnas.interfaces import FloatArray
from hwnas.latency.sections import ProfileConfig
from hwnas.latency.table import LatencyTable
from hwnas.measure.profile import profile
from hwnas.spaces.load import build_space
from hwnas.spaces.space import SearchSpace

DEVICES = ("local", "local_litert", "local_litert_int8")
N_BOOTSTRAP = 2000
MAX_ROUNDS = 10_000  # the time budget decides
BARS = {"fp32": 0.015, "fp16": 0.015, "int8": 0.010}
NOISY, ABOVE_NOISE = 0.008, 0.007


def tables(space: SearchSpace, args: argparse.Namespace) -> dict[str, LatencyTable]:
    """The three tables, timed by turns."""
    found: dict[str, LatencyTable] = {}
    for part in range(1, args.slices + 1):
        for name in args.devices.split(","):
            config = ProfileConfig(
                n_validation=args.n_validate,
                time_budget_s=args.time_budget * part / args.slices,
                rounds=MAX_ROUNDS,
                target_error=0.0,
            )
            found[name] = profile(
                space,
                load_device(name),
                args.work / name,
                config,
                seed=args.seed,
                progress=progress_for(f"{name}, slice {part} of {args.slices}"),
            )
            found[name].save(args.work / f"{name}.json")
    return found


def nets(table: LatencyTable, space: SearchSpace) -> tuple[FloatArray, FloatArray]:
    """Absolute relative errors of the forecasts, and measured latencies, of the networks [n]."""
    timed = table.corrections[space.id].validation.nets
    measured = np.array([net.measured_ms for net in timed])
    forecast = np.array([net.forecast_ms for net in timed])
    return np.abs(forecast / measured - 1), measured


def bar(precision: str, repeat_mape: float) -> float:
    """Largest MAPE of a good table."""
    return repeat_mape + ABOVE_NOISE if repeat_mape > NOISY else BARS[precision]


def interval(values: FloatArray, seed: int) -> list[float]:
    """95 % bootstrap interval of a mean over networks."""
    draws = rng(seed, "benchmark/bootstrap").integers(0, len(values), (N_BOOTSTRAP, len(values)))
    return [round(float(q), 5) for q in np.quantile(values[draws].mean(axis=1), [0.025, 0.975])]


def quantiles(ratios: FloatArray) -> list[float]:
    """10th, 50th and 90th percentile."""
    return [round(float(q), 3) for q in np.quantile(ratios, [0.1, 0.5, 0.9])]


def compare(found: dict[str, LatencyTable], space: SearchSpace, seed: int) -> dict[str, Any]:
    """What the module says, by device."""
    result: dict[str, Any] = {}
    base = next(iter(found.values()))
    base_errors, base_ms = nets(base, space)
    for name, table in found.items():
        validation = table.corrections[space.id].validation
        errors, ms = nets(table, space)
        rows = [(row.median_ms, base.rows[op].median_ms) for op, row in table.rows.items()]
        result[name] = {
            "mape": validation.forecast.mape,
            "mape_interval": interval(errors, seed),
            "within_5": float((errors <= 0.05).mean()),
            "within_10": float((errors <= 0.1).mean()),
            "bar": round(bar(table.device.precision, validation.repeat_mape), 5),
            "kendall_tau": validation.forecast.kendall_tau,
            "repeat_mape": validation.repeat_mape,
            "raw_sum_mape": validation.raw_sum.mape,
            "macs_line_mape": validation.macs_line.mape,
            "n_nets": len(ms),
            "n_ops": len(table.rows),
            "rounds": table.facts["rounds"],
            "warnings": len(table.warnings),
            "network_ratio": quantiles(ms / base_ms),
            "operator_ratio": quantiles(np.array([a / b for a, b in rows if b > 0])),
            "mape_difference": round(float((errors - base_errors).mean()), 5),
            "mape_difference_interval": interval(errors - base_errors, seed),
        }
    return result


def main() -> None:
    """Parse the command line and print the result."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--space", default="mobilenet_v3")
    parser.add_argument("--resolutions", default="160", help="px, comma-separated")
    parser.add_argument("--devices", default=",".join(DEVICES), help="the first is compared with")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--n-validate", type=int, default=150)
    parser.add_argument("--time-budget", type=float, default=440.0, help="s of timing per device")
    parser.add_argument("--slices", type=int, default=8, help="turns that the devices take")
    parser.add_argument("--work", type=Path, required=True, help="folder to resume in")
    parser.add_argument("--format", choices=["json"], default="json")
    args = parser.parse_args()
    px = [int(text) for text in args.resolutions.split(",")]
    space = build_space(args.space, {"resolutions": px}, num_classes=1000)
    begin, processor = time.monotonic(), time.process_time()
    found = compare(tables(space, args), space, args.seed)
    seconds = {"seconds": time.monotonic() - begin, "processor_s": time.process_time() - processor}
    print(json.dumps({"space": args.space, "resolutions": px, **found, **seconds}, indent=1))


if __name__ == "__main__":
    main()
