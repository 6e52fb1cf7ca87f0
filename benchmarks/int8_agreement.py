"""On which images 8-bit files must agree with their float network, so that they agree on others.

    hwnas run quickstart --run runs/quickstart
    python benchmarks/int8_agreement.py --run runs/quickstart

Prints a row for every network of the run and for every set of images that can decide which layers
stay in float (`exporters.mixed`, target 99 %, ONNX Runtime): agreement on that set and on the test
images, layers in float, and processor time. The sets: training images that do not determine the
ranges; validation images (what `hwnas export RUN` takes); averages of pairs of the training images;
training images as the training augments them.

docs/results.md has the table of a run.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import hwnas
from hwnas.cli.output import Format, emit
from hwnas.core.env import use_threads
from hwnas.core.rng import rng
from hwnas.exporters.float_graph import float_graph
from hwnas.exporters.quantize import _logits, on_grid, quantized
from hwnas.interfaces import Images
from hwnas.pipeline.project import Project
from hwnas.spaces.arch import Arch
from hwnas.spaces.lowering import resolution
from hwnas.training.images import resize

N_RANGES, N_IMAGES, BATCH = 128, 512, 32
TARGET, MOST = 0.99, 0.5


def judged_sets(project: Project, px: int, others: Images) -> dict[str, Images]:
    """Images [n, C, px, px] that can decide, by name."""
    first, second = rng(0, "benchmarks/pairs").integers(0, len(others), (2, N_IMAGES))
    batches = itertools.islice(project.data.train_batches(0, BATCH), N_IMAGES // BATCH)
    return {
        "training": others,
        "validation": project.images("val", px, N_IMAGES)[0],
        "averages of pairs": (others[first] + others[second]) / 2,
        "augmented": torch.cat([resize(x, px) for x, _ in batches]).numpy(),
    }


def rows(project: Project, name: str, network: torch.nn.Module, arch: Arch) -> Any:
    """Rows of one network."""
    px = resolution(project.space, arch)
    batches = project.data.calibration_batches(N_IMAGES // BATCH, BATCH)
    train = torch.cat([resize(x, px) for x in batches]).numpy()
    order = rng(0, "exporters/int8").permutation(len(train))
    ranges, others = train[order[:N_RANGES]], train[order[N_RANGES:]]
    with tempfile.TemporaryDirectory() as folder:
        graph = float_graph(network, input_shape=train.shape[1:], folder=Path(folder))
    rounded = on_grid(graph, network, ranges, levels=64)
    test, _ = project.images("test", px)
    expected = _logits(graph, test).argmax(1)
    for kind, judged in judged_sets(project, px, others).items():
        start = time.process_time()
        found = quantized(
            graph,
            ranges,
            judged,
            method="minmax",
            target_agreement=TARGET,
            max_float_layers=MOST,
            rounded=rounded,
        )
        seconds = time.process_time() - start
        yield {
            "network": name,
            "judged on": kind,
            "images": len(judged),
            "agreement there": round(found.agreement, 4),
            "on test": round(float(np.mean(_logits(found.model, test).argmax(1) == expected)), 4),
            "all in 8 bits, there": round(found.agreement_all_int8, 4),
            "float layers": f"{len(found.float_layers)} of {found.n_layers}",
            "cpu_s": round(seconds, 1),
        }


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--networks", default="winner", help="names, with commas; all: every one")
    args = parser.parse_args()
    run = hwnas.open_run(args.run)
    use_threads(1)
    chosen = None if args.networks == "all" else args.networks.split(",")
    found = [
        row
        for one in run.networks
        if chosen is None or one.name in chosen
        for row in rows(run.project, one.name, run.network(one.name), one.arch)
    ]
    emit(found, format=Format.table, title=str(args.run))
    return 0


if __name__ == "__main__":
    sys.exit(main())
