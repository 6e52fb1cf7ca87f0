"""What MACs, CPU tables and one phone's table say of other phones, GPUs, NPUs, microcontrollers.

    python benchmarks/accelerators.py --data $DATA [--part NAME,...] [--format json]

Repeats every number of docs/accelerators.md. `--data` has the folders `mobile_ml_bench`,
`qualcomm_aihub`, `device_tables_edge`, `hw_nasbench201`, `latency_nasbench201` and `latency_ofa`.
Intervals are 95 % percentile bootstrap intervals over networks, with fixed seeds.

Three parts measure on this machine. `here` times 14 networks in ONNX Runtime and LiteRT (a minute).
`our-cells` profiles NAS-Bench-201 (two minutes).
`delegates` exports a random network of every space that can be trained, and reads from the files
which operators XNNPACK does not run (LiteRT, and ExecuTorch if it is installed: minutes per space).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from accelerator_parts import boards, phones

from hwnas.cli.output import Format, emit
from hwnas.core.errors import UserError

Part = Callable[[argparse.Namespace], list[dict[str, Any]]]


def _delegates(args: argparse.Namespace) -> list[dict[str, Any]]:
    from accelerator_parts.delegates import delegated

    return delegated(args.spaces)


def _here(args: argparse.Namespace) -> list[dict[str, Any]]:
    from accelerator_parts.here import here_on_phones

    return here_on_phones(args.data / "mobile_ml_bench")


PARTS: dict[str, Part] = {
    "cells": lambda args: boards.cells(
        args.data / "latency_nasbench201", args.data / "hw_nasbench201"
    ),
    "our-cells": lambda args: boards.our_cells(
        args.data / "latency_nasbench201", args.data / "hw_nasbench201"
    ),
    "our-tables": lambda args: boards.our_tables(args.data / "latency_ofa"),
    "phones": lambda args: phones.real_networks(args.data / "mobile_ml_bench"),
    "random": lambda args: phones.random_networks(args.data / "mobile_ml_bench"),
    "npus": lambda args: phones.qualcomm_ranks(args.data / "qualcomm_aihub"),
    "cpu-on-npu": lambda args: phones.phone_cpu_on_npu(
        args.data / "mobile_ml_bench", args.data / "qualcomm_aihub"
    ),
    "int8": lambda args: phones.int8_order(
        args.data / "mobile_ml_bench", args.data / "qualcomm_aihub"
    ),
    "int8-families": lambda args: phones.int8_families(args.data / "mobile_ml_bench"),
    "gpu-operators": lambda args: phones.gpu_operators(args.data / "mobile_ml_bench"),
    "outside": lambda args: phones.outside_the_npu(args.data / "qualcomm_aihub"),
    "hailo": lambda args: boards.edge_accelerators(args.data / "device_tables_edge"),
    "hailo-rate": lambda args: boards.hailo_rate(args.data / "device_tables_edge"),
    "microcontrollers": lambda args: boards.microcontrollers(args.data / "device_tables_edge"),
    "tiny": lambda args: boards.tiny_systems(args.data / "device_tables_edge"),
    "here": _here,
    "delegates": _delegates,
}


def main(arguments: list[str] | None = None) -> int:
    """Print the rows of the parts; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument(
        "--part", default="", help=f"some of {', '.join(PARTS)}, separated by commas; default: all"
    )
    parser.add_argument("--spaces", default="", help="of the part delegates; default: all")
    parser.add_argument("--format", choices=("table", "json"), default="table")
    args = parser.parse_args(arguments)
    chosen = list(dict.fromkeys(args.part.split(","))) if args.part else list(PARTS)
    if unknown := sorted({*chosen} - PARTS.keys()):
        expected = f"some of {', '.join(PARTS)}"
        print(
            f"error: unknown parts\n  expected: {expected}\n  found: {', '.join(unknown)}",
            file=sys.stderr,
        )
        return 2
    begin, found = time.process_time(), {}
    for part in chosen:
        try:
            found[part] = PARTS[part](args)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        if args.format == "table":
            emit(found[part], format=Format.table, title=part)
    cpu_s = round(time.process_time() - begin, 1)
    if args.format == "json":
        print(json.dumps({**found, "cpu_s": cpu_s}, indent=1))
    else:
        print(f"processor time {cpu_s} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
