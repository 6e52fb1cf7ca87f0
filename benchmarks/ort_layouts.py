"""Time of a run's winner as `.ort` and `.onnx`, with and without blocked layouts of tensors.

    hwnas run quickstart --run runs/quickstart
    python benchmarks/ort_layouts.py --run runs/quickstart

Prints a row for every file: milliseconds of one image on one thread, and their ratio to those of
`model.onnx`. The files take turns: median over rounds of the fastest of several runs.
docs/deploy.md has the table of a run.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import hwnas
from hwnas.cli.output import Format, emit
from hwnas.core.env import onnx_runtime, use_threads
from hwnas.exporters.formats import exporter
from hwnas.nets.subnet import input_shape_of

ROUNDS, RUNS = 40, 8
PLAIN = "model.onnx without blocked layouts"


def opened(path: Path, *, is_plain: bool = False) -> Any:
    """A session of one thread. is_plain: without the optimisations that depend on the processor."""
    onnxruntime = onnx_runtime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    if is_plain:
        extended = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.graph_optimization_level = extended
    providers = ["CPUExecutionProvider"]
    return onnxruntime.InferenceSession(str(path), options, providers=providers)


def sessions(run: hwnas.Run, folder: Path) -> dict[str, Any]:
    """Opened files by the name of their row."""
    network = run.network("winner")
    given = {"input_shape": input_shape_of(network)}
    onnx, *_ = exporter("onnx").export(network, folder=folder, **given)
    found = {"model.onnx": opened(onnx), PLAIN: opened(onnx, is_plain=True)}
    for target in ("any", "arm", "amd64"):
        made = exporter("ort", target=target)
        path, *_ = made.export(network, folder=folder / target, **given)
        found[f"model.ort, target {target}"] = opened(path)
    return found


def timed(files: Mapping[str, Any], shape: tuple[int, ...]) -> dict[str, float]:
    """Milliseconds of one image by file."""
    x = np.random.default_rng(0).standard_normal((1, *shape)).astype(np.float32)
    rounds: dict[str, list[float]] = {name: [] for name in files}
    for _ in range(ROUNDS):
        for name, session in files.items():
            fastest = float("inf")
            for _ in range(RUNS):
                start = time.perf_counter()
                session.run(["logits"], {"input": x})
                fastest = min(fastest, time.perf_counter() - start)
            rounds[name].append(1e3 * fastest)
    return {name: median(ms) for name, ms in rounds.items()}


def main() -> int:
    """Prints the table; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", required=True, help="folder of a finished run")
    args = parser.parse_args()
    use_threads(1)
    run = hwnas.open_run(args.run)
    with tempfile.TemporaryDirectory() as folder:
        ms = timed(sessions(run, Path(folder)), input_shape_of(run.network("winner")))
    rows = [
        {"file": name, "ms": round(one, 4), "ratio": round(one / ms["model.onnx"], 2)}
        for name, one in ms.items()
    ]
    emit(rows, format=Format.table, title=f"winner of {args.run}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
