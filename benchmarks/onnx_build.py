"""Latency of nets as built for profiling against the same nets as the exporter writes them.

    python benchmarks/onnx_build.py

Latency tables rest on graphs that are built without torch. This times both forms of random archs in
one interleaved plan and prints JSON: the ratio of the two per arch, the largest deviation from 1
(must: at most 2 %), and how far two halves of the same timings are apart. Batch normalisation gets
statistics as training leaves them; of a fresh model the exporter drops the biases, which are zero.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import torch

from hwnas.builders.onnx import network
from hwnas.core.rng import rng, stable_seed
from hwnas.devices.spec import load_device
from hwnas.exporters.onnx import Config, build
from hwnas.latency.sections import ProfileConfig
from hwnas.measure.profile import time_models
from hwnas.nets.subnet import build_subnet
from hwnas.spaces.load import build_space
from hwnas.spaces.lowering import lower, resolution


def main() -> None:
    """Parse the command line and print the result."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--space", default="mobilenet_v3")
    parser.add_argument("--n", type=int, default=4, help="random archs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--time-budget", type=float, default=60.0, help="s of timing")
    args = parser.parse_args()
    space = build_space(args.space, num_classes=1000)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        models: dict[str, Path] = {}
        for i, row in enumerate(space.sample(args.n, rng=rng(args.seed, "benchmarks/onnx_build"))):
            arch = space.arch(row)
            built = models[f"built-{i}"] = folder / f"built-{i}.onnx"
            built.write_bytes(network(lower(space, arch)).SerializeToString())
            model = _as_trained(build_subnet(space, arch, seed=args.seed), args.seed).eval()
            px = resolution(space, arch)
            (exported,) = build(Config(dynamic_batch=False)).export(
                model, input_shape=(3, px, px), folder=folder / str(i)
            )
            models[f"exported-{i}"] = exported
        timings = time_models(
            models,
            load_device("local"),
            folder / "timing",
            ProfileConfig(retiming_budget_s=args.time_budget),
            seed=args.seed,
        )
    ms = {name: timing.median_ms for name, timing in timings.models.items()}
    ratios = [round(ms[f"built-{i}"] / ms[f"exported-{i}"], 4) for i in range(args.n)]
    worst = max(abs(ratio - 1) for ratio in ratios)
    found = {"ms": ms, "ratios": ratios, "worst": worst, "repeat_mape": timings.repeat_mape}
    print(json.dumps({"space": space.name, **found}, indent=1))


def _as_trained(model: torch.nn.Module, seed: int) -> torch.nn.Module:
    """The model with shifts that batch normalisation folds into biases other than zero."""
    generator = torch.Generator().manual_seed(stable_seed(seed, "benchmarks/onnx_build") % 2**32)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d) and module.running_mean is not None:
            module.running_mean.normal_(0.0, 0.1, generator=generator)
    return model


if __name__ == "__main__":
    main()
