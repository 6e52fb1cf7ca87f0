"""Published networks against winners that are searched for the latency of each, on this machine.

    python benchmarks/references.py --data $DATA --work references

Per device (ONNX Runtime and LiteRT, fp32 and int8): a table of `mobilenet_v3` and `mobilenet_v4` at
224 px; the eight reference networks beside networks of the table; for each of them and each space,
the best architecture that is as fast by estimate; then all of them timed in one interleaved plan.

Scores: `mobilenet_v3` by a predictor that learns OFA's recorded ImageNet accuracies of subnets, so
its accuracies here are predicted, and marked so, with a 90 % interval of the predictor. No such
records exist for `mobilenet_v4`: its winners have the best predicted Zen-Score (2102.01063), and no
accuracy.
A predicted accuracy is of OFA's weights; published ones are of other recipes.

Every step is a file in `--work`, and timings are journaled: the same command goes on where it was
interrupted. `cpu_s` states the processor time of every step, those of the device kit included.
`--quick` takes few rounds, to see whether it runs; its latencies mean little.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from search_parts.cells import Cells

import hwnas
from hwnas.cli.output import progress_for
from hwnas.core.records import dump, load
from hwnas.devices.spec import load_device, load_transport
from hwnas.interfaces import DeviceSpec, FloatArray, PredictorContext, ProxyContext
from hwnas.latency.estimator import TableEstimator
from hwnas.latency.sections import ProfileConfig
from hwnas.latency.table import LatencyTable
from hwnas.measure.networks import network_models
from hwnas.measure.profile import profile
from hwnas.measure.references.settings import NAMES, PUBLISHED_PX
from hwnas.measure.references.timing import Reference, References, time_references
from hwnas.nets.proxies import REGISTRY as PROXIES
from hwnas.predictors import gcn
from hwnas.spaces.arch import Arch
from hwnas.spaces.load import build_space
from hwnas.spaces.space import Codes, SearchSpace
from hwnas.studies.compare_predictors import labels_of_file

DEVICES = ("local", "local_int8", "local_litert", "local_litert_int8")
SPACES: dict[str, dict[str, Any]] = {
    "mobilenet_v3": {"resolutions": [PUBLISHED_PX]},
    "mobilenet_v4": {"resolutions": [PUBLISHED_PX], "variant": "small"},
}
Z90 = 1.645
ZEN_PX = 64


def space_of(name: str) -> SearchSpace:
    """The space at 224 px for ImageNet."""
    return build_space(name, SPACES[name], num_classes=1000)


def processor_s() -> float:
    """Processor seconds of this process and of those that it waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def with_cost(compute: Callable[[], dict[str, Any]]) -> Callable[[], dict[str, Any]]:
    """The same, with the processor time and the time that it took."""

    def run() -> dict[str, Any]:
        cpu, begin = processor_s(), time.monotonic()
        found = compute()
        return found | {
            "cpu_s": round(processor_s() - cpu, 1),
            "wall_s": round(time.monotonic() - begin, 1),
        }

    return run


def table_of(name: str, device: DeviceSpec, args: argparse.Namespace) -> LatencyTable:
    """A space's table on a device; `--work` resumes it."""
    path = args.work / "tables" / f"{name}-{device.name}.json"
    if not path.exists():
        profile(
            space_of(name),
            device,
            path.with_suffix(".samples"),
            protocol(args),
            progress=progress_for(f"{name} on {device.name}"),
            transport=load_transport(device.name),
        ).save(path)
    return LatencyTable.load(path)


def protocol(args: argparse.Namespace) -> ProfileConfig:
    """How tables and networks are timed."""
    if args.quick:
        few: dict[str, Any] = {"rounds": 2, "min_rounds": 2, "hot_samples": 4, "n_validation": 6}
        return ProfileConfig(time_budget_s=1.0, retiming_budget_s=1.0, **few)
    return ProfileConfig(time_budget_s=args.time_budget, retiming_budget_s=args.retiming_budget)


def timed(
    device: DeviceSpec, folder: str, args: argparse.Namespace, own: dict[str, bytes] | None = None
) -> References:
    """The eight networks, and `own`, beside networks of the table of `mobilenet_v3`."""
    space = space_of("mobilenet_v3")
    return time_references(
        [Reference(name, PUBLISHED_PX) for name in args.names],
        device,
        args.work / folder / device.name,
        protocol(args),
        own=own,
        table=table_of("mobilenet_v3", device, args),
        space=space,
        progress=progress_for(f"{folder} on {device.name}"),
        transport=load_transport(device.name),
    )


Scores = Callable[[Codes], tuple[FloatArray, FloatArray]]


def accuracy_of(data: Path) -> Scores:
    """Mean and standard deviation [n] of the predicted ImageNet top-1 of `mobilenet_v3` archs."""
    labels = labels_of_file(data / "ofa_mbv3_imagenet" / "records.json")
    predictor = gcn.build(gcn.Config(), PredictorContext(labels.space, 0))
    predictor.fit(labels.codes, labels.scores)
    whole, own = labels.space, space_of("mobilenet_v3")

    def predict(codes: Codes) -> tuple[FloatArray, FloatArray]:
        moved = codes.copy()
        moved[:, 0] = whole.macro.resolutions.index(own.macro.resolutions[0])
        return predictor.predict(moved)

    return predict


def zen_of(space: SearchSpace, cells: Cells, n: int) -> Scores:
    """Zen-Scores as a predictor has them that learned n of them: one takes a second to compute."""

    def compute() -> dict[str, Any]:
        module = PROXIES.load("zen")
        proxy = module.build(module.Config(px=ZEN_PX), ProxyContext(space, 0))
        codes = space.sample(n, seed=0)
        return {"codes": codes.tolist(), "scores": np.asarray(proxy(codes)).tolist()}

    known = cells.get(f"zen-{space.id}-{n}", with_cost(compute))
    predictor = gcn.build(gcn.Config(), PredictorContext(space, 0))
    predictor.fit(np.array(known["codes"], dtype=np.int16), np.array(known["scores"]))
    return predictor.predict


def winner(
    name: str, limit_ms: float, device: str, score: Scores, args: argparse.Namespace
) -> dict[str, Any]:
    """The best architecture of a space that is as fast as a reference, by estimate."""
    table = table_of(name, load_device(device), args)
    found = hwnas.search(
        space_of(name),
        score=lambda codes: score(codes)[0],
        limits={f"latency_ms@{device}": limit_ms},
        tables=[table],
        budget=args.budget,
    ).winner
    codes = space_of(name).codes([found.arch])
    mean, std = (float(values[0]) for values in score(codes))
    estimate = float(TableEstimator(table, space_of(name)).latency_ms(codes)[0])
    row: dict[str, Any] = {"arch": dump(found.arch), "estimate_ms": estimate, "score": mean}
    if name == "mobilenet_v3":
        row |= {
            "imagenet_top1_predicted": mean,
            "interval_90": [mean - Z90 * std, mean + Z90 * std],
        }
    return row


def on_device(name: str, cells: Cells, args: argparse.Namespace) -> dict[str, Any]:
    """All steps on one device."""
    device = load_device(name)
    eight = load(
        References,
        strip(
            cells.get(f"references-{name}", with_cost(lambda: dump(timed(device, "eight", args))))
        ),
        where=f"references-{name}",
    )
    scores = {
        "mobilenet_v3": accuracy_of(args.data),
        "mobilenet_v4": zen_of(space_of("mobilenet_v4"), cells, args.n_zen),
    }
    winners: dict[str, dict[str, Any]] = {}
    for row in eight.networks:
        for space in args.spaces if row.measured_ms is not None else ():
            limit_ms = row.measured_ms

            def search(space: str = space, limit_ms: float = limit_ms or 0.0) -> dict[str, Any]:
                try:
                    return winner(space, limit_ms, name, scores[space], args)
                except hwnas.UserError as error:  # no architecture is as fast
                    return {"arch": None, "why": str(error).splitlines()[0]}

            key = f"{space} as fast as {row.name}"
            winners[key] = cells.get(f"winner-{name}-{space}-{row.name}", with_cost(search))
    final = cells.get(f"final-{name}", with_cost(lambda: together(device, winners, args)))
    return {"references": dump(eight), "winners": winners, "final": final}


def strip(found: dict[str, Any]) -> dict[str, Any]:
    """A record without what `with_cost` adds."""
    return {key: value for key, value in found.items() if key not in ("cpu_s", "wall_s")}


def together(
    device: DeviceSpec, winners: dict[str, dict[str, Any]], args: argparse.Namespace
) -> dict[str, Any]:
    """References and winners, timed in one interleaved plan."""
    own: dict[str, bytes] = {}
    for key, row in winners.items():
        if row["arch"] is not None:
            arch = load(Arch, row["arch"], where=key)
            space = space_of(key.partition(" ")[0])
            (model,) = network_models(space, space.codes([arch]), device, seed=0).values()
            own[key.replace(" ", "_")] = model
    found = timed(device, "final", args, own)
    rows = []
    for row in found.networks:
        ms = {s: found.own_ms.get(f"{s}_as_fast_as_{row.name}") for s in args.spaces}
        known = {s: winners.get(f"{s} as fast as {row.name}", {}) for s in args.spaces}
        rows.append(
            row.summary()
            | {f"{s} ms": value for s, value in ms.items()}
            | {
                "mobilenet_v3 predicted top1": known.get("mobilenet_v3", {}).get(
                    "imagenet_top1_predicted"
                ),
                "interval_90": known.get("mobilenet_v3", {}).get("interval_90"),
            }
        )
    return {"pace": found.pace, "table": rows}


def main() -> None:
    """Measure what is missing, then print everything as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="ofa_mbv3_imagenet/")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--devices", nargs="+", default=list(DEVICES))
    parser.add_argument("--spaces", nargs="+", default=list(SPACES), choices=SPACES)
    parser.add_argument("--names", nargs="+", default=list(NAMES))
    parser.add_argument("--budget", type=int, default=12_800, help="proposals of every search")
    parser.add_argument("--n-zen", type=int, default=200, help="archs whose Zen-Score is computed")
    parser.add_argument("--time-budget", type=float, default=300.0, help="seconds per table")
    parser.add_argument("--retiming-budget", type=float, default=60.0, help="seconds per plan")
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    cells = Cells(args.work / "cells")
    found = {device: on_device(device, cells, args) for device in args.devices}
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
