"""Networks of a finished run in 8 bits through LiteRT, beside fp32 through ONNX Runtime.

    hwnas run quickstart --run runs/quickstart
    python benchmarks/quickstart_int8.py --run runs/quickstart

Prints JSON. Per network: latency in ms of ONNX Runtime in fp32, LiteRT in fp32, LiteRT with all
layers in 8 bits, and LiteRT in 8 bits as it is exported, as the device kit runs a model (one
thread, batch 1), in one interleaved loop; `ratio` to the first (median over rounds, with a 90 %
interval of that median); agreement with fp32, and top-1 on the test images.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import hwnas
from hwnas.core.env import host_facts, use_threads
from hwnas.core.rng import rng
from hwnas.exporters import REGISTRY
from hwnas.exporters.formats import export
from hwnas.interfaces import FloatArray, OpenModel
from hwnas.pipeline.project import Project
from hwnas.spaces.arch import Arch
from hwnas.spaces.lowering import resolution
from hwnas.training.images import resize

ROLES = ("winner", "random search", "random subnet", "largest")
WARM, HOT, N_BOOTSTRAP = 5, 25, 2000
FIRST = "onnxruntime fp32"
FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    FIRST: ("onnx", {}),
    "litert fp32": ("litert", {"precision": "fp32"}),
    "litert int8, all layers": ("litert", {"precision": "int8", "max_float_layers": 0.0}),
    "litert int8": ("litert", {"precision": "int8"}),
}
KIT = Path(__file__).parent.parent / "export"
sys.path.insert(0, str(KIT))
import run_litert  # noqa: E402  (the kit is no package)
import run_onnxruntime  # noqa: E402

RUNNERS = {
    "onnx": run_onnxruntime.Runner("CPUExecutionProvider", 1, 1, "fp32"),
    "litert": run_litert.Runner("cpu", 1, 1, "fp32"),
}


def by_turns(runs: dict[str, Callable[[], Any]], rounds: int) -> dict[str, FloatArray]:
    """[rounds] by name: the fastest of a turn's runs, in ms."""
    found: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            for _ in range(WARM):
                run()
            taken = []
            for _ in range(HOT):
                begin = time.perf_counter()
                run()
                taken.append(1e3 * (time.perf_counter() - begin))
            found[name].append(min(taken))
    return {name: np.array(values) for name, values in found.items()}


def ratio(ours: FloatArray, theirs: FloatArray) -> list[float]:
    """Median of the rounds' ratios, and its 90 % bootstrap interval."""
    paired = ours / theirs
    drawn = rng(0, "benchmark/ratio").choice(paired, (N_BOOTSTRAP, len(paired)))
    low, high = np.quantile(np.median(drawn, axis=1), [0.05, 0.95])
    return [round(float(value), 3) for value in (np.median(paired), low, high)]


def compare(project: Project, network: Any, arch: Arch, rounds: int, folder: Path) -> Any:
    """A network in all formats."""
    px = resolution(project.space, arch)
    images = torch.cat([resize(x, px) for x in project.data.calibration_batches(16, 32)]).numpy()
    test = [(resize(x, px).numpy(), y.numpy()) for x, y in project.data.eval_batches("test", 64)]
    labels = np.concatenate([y for _, y in test])
    models: dict[str, OpenModel] = {}
    runs: dict[str, Callable[[], Any]] = {}
    for name, (kind, settings) in FORMATS.items():
        path = export(network, kind, folder / name, images=images, **settings)[0]
        exporter = REGISTRY.load(kind)
        models[name] = exporter.build(exporter.Config(**settings)).open_model(path)
        runs[name] = RUNNERS[kind].load(path)
    guesses = {
        name: np.concatenate([model.logits(x) for x, _ in test]).argmax(1)
        for name, model in models.items()
    }
    taken = by_turns(runs, rounds)
    return {
        "px": px,
        "ms": {name: round(float(np.median(values)), 4) for name, values in taken.items()},
        "ratio": {name: ratio(values, taken[FIRST]) for name, values in taken.items()},
        "top1": {name: round(float((g == labels).mean()), 4) for name, g in guesses.items()},
        "agreement": {n: round(float((g == guesses[FIRST]).mean()), 4) for n, g in guesses.items()},
    }


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=60)
    options = parser.parse_args()
    run = hwnas.open_run(options.run)
    use_threads(1)
    rows = {row.name: row.arch for row in run.networks}
    with tempfile.TemporaryDirectory() as scratch:
        found = {
            role: compare(
                run.project, run.network(role), rows[role], options.rounds, Path(scratch) / role
            )
            for role in ROLES
            if role in rows
        }
    json.dump({"networks": found, "host": host_facts()}, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
