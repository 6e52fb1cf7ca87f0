"""8-bit files of a run's winner, with the nearest weights and with compensated ones.

    hwnas run quickstart --run runs/quickstart
    python benchmarks/int8_formats.py --run runs/quickstart [--formats litert:int8,coreml:int8]

Prints a row for every format, way of rounding (`weights`) and target agreement: agreement with the
float32 network on the test images, root mean square error of the logits, size, processor time.
Formats whose package is missing are left out. docs/results.md has the table of a run.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import hwnas
from hwnas.cli.output import Format, emit
from hwnas.core.env import use_threads
from hwnas.exporters import REGISTRY
from hwnas.exporters.formats import exporter
from hwnas.exporters.parity import torch_logits
from hwnas.pipeline.stages.export import N_HELD_OUT, _training_images
from hwnas.spaces.lowering import resolution

FORMATS = "int8,litert:int8,coreml:int8,executorch:int8"  # 5 minutes, four of them ExecuTorch's
NONE, USUAL = 1e-6, 0.99  # target agreements: no layer stays in float, and the default


def rows(run: hwnas.Run, format: str) -> Iterator[dict[str, Any]]:
    """Rows of one format."""
    (one,) = (network for network in run.networks if network.name == "winner")
    network, project = run.network("winner"), run.project
    px = resolution(project.space, one.arch)
    held_out, _ = project.images("val", px, N_HELD_OUT)
    test, _ = project.images("test", px)
    given = {"images": _training_images(project, px), "held_out": held_out}
    expected = torch_logits(network, test)
    for target in (NONE, USUAL) if not format.startswith("coreml") else (NONE,):
        for weights in ("nearest", "compensated"):
            settings = {} if format.startswith("coreml") else {"target_agreement": target}
            made = exporter(format, weights=weights, **settings)
            with tempfile.TemporaryDirectory() as folder:
                start = time.process_time()
                path, *_ = made.export(
                    network, input_shape=test.shape[1:], folder=Path(folder), **given
                )
                seconds, size = time.process_time() - start, path.stat().st_size
                found = made.open_model(path).logits(test)
            yield {
                "format": format,
                "weights": weights,
                "float layers": "none" if target == NONE else "as needed",
                "agreement": round(float(np.mean(found.argmax(1) == expected.argmax(1))), 4),
                "rms": round(float(np.sqrt(np.square(found - expected).mean())), 4),
                "MB": round(size / 1e6, 3),
                "cpu_s": round(seconds, 1),
            }


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--formats", default=FORMATS)
    args = parser.parse_args()
    use_threads(1)
    run, found = hwnas.open_run(args.run), []
    for format in args.formats.split(","):
        if REGISTRY.describe(format.partition(":")[0]).missing:
            print(f"{format}: its package is not installed", file=sys.stderr)
            continue
        found += rows(run, format)
    emit(found, format=Format.table, title=str(args.run))
    return 0


if __name__ == "__main__":
    sys.exit(main())
