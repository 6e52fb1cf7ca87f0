"""What a table's estimates are worth in spaces beside the profiled one, by timing those too.

    python benchmarks/latency_subspaces.py
    python benchmarks/latency_subspaces.py --classifiers --device local_int8

Profiles a part of `mobilenet_v3` (128 and 192 px, 1000 classes), then times new networks of that
space, and of spaces beside it: one resolution, 10 classes at one resolution, 100 classes. Prints
JSON, a row per space: `inside` (share of networks in their 90 % interval), `mape` of the estimates,
`raw_mape` of the sums of rows, `half_width` of the interval, mean, as a fraction. Latencies are
compared at the table's speed (its pace divided out). Ten minutes with the defaults.

`--classifiers` times classifiers alone instead, of 512, 1280 and 1504 inputs: ms by number of
classes, of the operator in its context less half of the empty context, as rows of tables are.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hwnas.builders.onnx import context, micro, network
from hwnas.builders.precision import to_precision
from hwnas.cli.output import progress_for
from hwnas.devices.spec import load_device
from hwnas.interfaces import DeviceSpec
from hwnas.latency.sections import ProfileConfig
from hwnas.measure.networks import validation_nets
from hwnas.measure.profile import profile, time_models
from hwnas.spaces.load import build_space
from hwnas.spaces.lowering import lower
from hwnas.spaces.ops import OpSpec
from hwnas.spaces.space import SearchSpace

RESOLUTIONS = (128, 192)
SUB_SPACES = (
    (1000, RESOLUTIONS),  # the profiled space itself, for comparison
    (1000, (128,)),
    (10, (128,)),
    (10, (192,)),
    (100, RESOLUTIONS),
)
N_PER_SUB_SPACE = 16
INPUTS = (512, 1280, 1504)
CLASSES = (2, 10, 50, 100, 200, 500, 1000, 2000, 4000)


def space_of(num_classes: int, resolutions: tuple[int, ...]) -> SearchSpace:
    """mobilenet_v3 with two kernels and two expansions, so that profiling takes minutes."""
    settings = {"resolutions": list(resolutions)}
    space = build_space("mobilenet_v3", settings, num_classes=num_classes)
    kept = {"kernel": (3, 7), "expand": (3, 6)}
    return space.restrict(
        {c.name: kept[c.role] for c in space.choices if c.role in kept and len(c.values) == 3}
    )


def store(model: Any, name: str, device: DeviceSpec, folder: Path) -> Path:
    """The model as a file of the device's precision."""
    path = folder / f"{name}.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    converted = to_precision(model, device.precision, for_tensorrt=False)
    path.write_bytes(converted.SerializeToString())
    return path


def sub_spaces(
    device: DeviceSpec, folder: Path, budget_s: float, seed: int
) -> list[dict[str, Any]]:
    """A row per sub-space."""
    whole = space_of(1000, RESOLUTIONS)
    config = ProfileConfig(
        n_validation=60, time_budget_s=budget_s, target_error=0.0, retiming_budget_s=budget_s / 2
    )
    show = progress_for("profile")
    table = profile(whole, device, folder / "table", config, seed=seed, progress=show)
    models, nets = {}, {}
    for num_classes, resolutions in SUB_SPACES:
        space = space_of(num_classes, resolutions)
        nets[space] = validation_nets(space, N_PER_SUB_SPACE, seed=seed + 1)
        for i, codes in enumerate(nets[space]):
            built = network(lower(space, space.arch(codes)), batch=device.batch, seed=seed)
            models[f"{space.id}-{i}"] = store(built, f"{space.id}-{i}", device, folder / "models")
    timed = time_models(models, device, folder / "truth", config, table=table, space=whole)
    raw = replace(table, corrections={})
    rows = []
    for space, codes in nets.items():
        names = [f"{space.id}-{i}" for i in range(len(codes))]
        measured = np.array([timed.models[name].median_ms for name in names]) / (timed.pace or 1)
        found = table.estimate(space, codes)
        errors = np.abs(found.ms / measured - 1)
        rows.append(
            {
                "num_classes": space.macro.num_classes,
                "resolutions": space.choices[0].values,
                "n": len(codes),
                "inside": float(((found.low <= measured) & (measured <= found.high)).mean()),
                "mape": float(errors.mean()),
                "within_5": float((errors <= 0.05).mean()),
                "within_10": float((errors <= 0.1).mean()),
                "raw_mape": float(np.abs(raw.estimate(space, codes).ms / measured - 1).mean()),
                "half_width": float((found.high / found.ms - 1).mean()),
            }
        )
    return [*rows, {"pace": timed.pace, "repeat_mape": timed.repeat_mape}]


def classifiers(
    device: DeviceSpec, folder: Path, budget_s: float, seed: int
) -> list[dict[str, Any]]:
    """A row per number of inputs: ms by number of classes."""
    models = {}
    for inputs in INPUTS:
        empty = context(inputs, 1, batch=device.batch, seed=seed)
        models[f"{inputs}"] = store(empty, f"{inputs}", device, folder)
        for n in CLASSES:
            op = OpSpec("linear", inputs, n, 1, 1)
            model = micro(op, before=True, after=False, batch=device.batch, seed=seed)
            models[f"{inputs}-{n}"] = store(model, f"{inputs}-{n}", device, folder)
    config = ProfileConfig(retiming_budget_s=budget_s)
    timed = time_models(models, device, folder / "plan", config).models
    return [
        {"inputs": inputs}
        | {
            str(n): timed[f"{inputs}-{n}"].median_ms - timed[f"{inputs}"].median_ms / 2
            for n in CLASSES
        }
        for inputs in INPUTS
    ]


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="local")
    parser.add_argument("--classifiers", action="store_true")
    parser.add_argument("--budget", type=float, default=300.0, help="seconds of profiling")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="keep samples here; a cut-off run goes on")
    args = parser.parse_args()
    measure = classifiers if args.classifiers else sub_spaces
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        rows = measure(load_device(args.device), folder, args.budget, args.seed)
    print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
