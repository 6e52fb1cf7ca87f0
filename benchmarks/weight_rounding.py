"""What rounding to half precision costs: to the nearest values, and as hwnas rounds.

    hwnas run quickstart --run runs/quickstart
    python benchmarks/weight_rounding.py --run runs/quickstart

Prints a row for every network of the run, way of rounding, and runtime: torch (float32 arithmetic
with the rounded weights) and the ONNX file in ONNX Runtime. Errors are the largest difference of
the logits from the float32 network, relative to its largest logit, over the test images: the
worst image and the median image; the file must stay within 0.01. Then top-1 agreement, and
processor time of rounding.

docs/results.md has the table of a run.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import hwnas
from hwnas.cli.output import Format, emit
from hwnas.core.env import use_threads
from hwnas.exporters import fp16
from hwnas.exporters.fold import folded
from hwnas.exporters.opened import onnxruntime_model
from hwnas.exporters.parity import torch_logits
from hwnas.exporters.weight_rounding import half_weights
from hwnas.interfaces import Images
from hwnas.pipeline.project import Project
from hwnas.spaces.arch import Arch
from hwnas.spaces.lowering import resolution
from hwnas.training.images import resize

N_IMAGES = 64


def nearest(network: torch.nn.Module, images: Images) -> torch.nn.Module:
    """The folded network with the nearest values of half precision."""
    net = folded(network, images.shape[1:])
    for value in net.parameters():
        value.data = value.data.half().float()
    return net


WAYS: dict[str, Callable[[torch.nn.Module, Images], torch.nn.Module]] = {
    "nearest": nearest,
    "hwnas": half_weights,
}


def rows(project: Project, name: str, network: torch.nn.Module, arch: Arch) -> Any:
    """Rows of one network."""
    px = resolution(project.space, arch)
    train = torch.cat([resize(x, px) for x in project.data.calibration_batches(1, N_IMAGES)])
    test, _ = project.images("test", px)
    expected = torch_logits(network, test)
    for way, rounded in WAYS.items():
        start = time.process_time()
        half = rounded(network, train.numpy())
        seconds = time.process_time() - start
        with tempfile.TemporaryDirectory() as folder:
            (path,) = fp16.build(fp16.Config()).export(
                half, input_shape=test.shape[1:], folder=Path(folder)
            )
            found = {
                "torch": torch_logits(half, test),
                "onnxruntime": onnxruntime_model(path).logits(test),
            }
        for runtime, logits in found.items():
            error = np.abs(logits - expected).max(1) / np.abs(expected).max()
            yield {
                "network": name,
                "rounding": way,
                "runtime": runtime,
                "worst image": round(float(error.max()), 5),
                "median image": round(float(np.median(error)), 5),
                "agreement": round(float(np.mean(logits.argmax(1) == expected.argmax(1))), 4),
                "cpu_s": round(seconds, 1),
            }


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, required=True)
    args = parser.parse_args()
    run = hwnas.open_run(args.run)
    use_threads(1)
    found = [
        row
        for one in run.networks
        for row in rows(run.project, one.name, run.network(one.name), one.arch)
    ]
    emit(found, format=Format.table, title=str(args.run))
    return 0


if __name__ == "__main__":
    sys.exit(main())
