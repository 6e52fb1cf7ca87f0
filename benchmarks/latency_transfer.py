"""How well a few timings of a new device carry over from known devices.

    python benchmarks/latency_transfer.py --tasks leave-out --data $DATA/latency_fbnet
    python benchmarks/latency_transfer.py --tasks nasflat --data FOLDER
    python benchmarks/latency_transfer.py --tasks shared --data $DATA
    python benchmarks/latency_transfer.py --tasks search --data $DATA
    python benchmarks/latency_transfer.py --tasks runtimes --data $DATA
    python benchmarks/latency_transfer.py --tasks own --data FOLDER

Per seed, the networks to time are chosen from a random pool by the prior over the known devices
alone. Known devices are smoothed additively first (`hwnas.latency.smoothing`), unless a column says
`raw`.

`leave-out`: every column in turn, with all batch sizes of its machine; DATA has a `latency.npz`.
`nasflat`: the seven tasks of NASFLAT (2403.02446) whose columns are below DATA (folders
    `latency_fbnet` and `latency_nasbench201`), beside its published rows. Sources are known on 800
    (FBNet) or 512 (NAS-Bench-201) networks only; an additive model estimates all others.
`shared`: five tasks of the same kind per space, on columns of the published files (listed in
    transfer_parts/tasks.py).
`search`: NAS-Bench-201 on CIFAR-100 under limits on two devices that are known by few timings;
    also reads `nasbench201_accuracy_200ep` below DATA.
`runtimes`: from one runtime, precision or unit of a phone to another, on the CNNs of Mobile ML
    Bench (`mobile_ml_bench` below DATA), beside a table that knows four fifths of the networks.
`own`: between ONNX Runtime, LiteRT and 8 bits on this machine, beside a full table; FOLDER is the
    `--work` of `benchmarks/litert_tables.py`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from transfer_parts.estimating import POOL, Columns
from transfer_parts.fixed import run_tasks
from transfer_parts.leave_out import leave_out
from transfer_parts.own_tables import across_own_tables
from transfer_parts.runtimes import across_runtimes
from transfer_parts.searching import read_accuracy, search_under_limits
from transfer_parts.tasks import NASFLAT, PUBLISHED, SHARED, Task

from hwnas.core.errors import UserError
from hwnas.measure.published.networks import read_measurements
from hwnas.spaces.load import build_space

SPACES = ("nasbench201", "fbnet")


def main(arguments: list[str] | None = None) -> int:
    """Print the rows of one set of tasks; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", choices=tuple(PARTS), default="leave-out")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--n", default=None, help="networks timed on the new device: 10 or 10,20")
    parser.add_argument("--pool", type=int, default=POOL, help="candidates to choose them from")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--format", choices=("table", "json"), default="table")
    args = parser.parse_args(arguments)
    begin = time.process_time()
    try:
        found = PARTS[args.tasks](args)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if args.format == "json":
        found = {"tasks": args.tasks, "seeds": args.seeds, **found}
        json.dump(found | {"processor_seconds": time.process_time() - begin}, sys.stdout, indent=1)
        print()
    else:
        _print(found)
    return 0


def _leave_out(args: argparse.Namespace) -> dict[str, Any]:
    (n,) = _counts(args, "10")
    found = leave_out(Columns(read_measurements(args.data)), n, args.pool, args.seeds)
    rows = [*found.pop("columns"), {"column": "mean", **found["mean"]}]
    return {"data": args.data.name, **found, "rows": rows}


def _fixed(args: argparse.Namespace, tasks: tuple[Task, ...]) -> dict[str, Any]:
    folders = {space: args.data / f"latency_{space}" for space in SPACES}
    data = {
        space: Columns(read_measurements(folder))
        for space, folder in folders.items()
        if (folder / "latency.npz").is_file()
    }
    rows, missing = run_tasks(tasks, data, _counts(args, "10,20"), args.seeds)
    if not rows:
        lost = "; ".join(f"{m['task']}: {', '.join(m['missing'])}" for m in missing)
        raise UserError("no task has all of its columns", found=f"missing: {lost}", where=args.data)
    return {"rows": rows, "not_run": missing}


def _nasflat(args: argparse.Namespace) -> dict[str, Any]:
    found = _fixed(args, NASFLAT)
    for row in found["rows"]:
        names = ("published_help_20", "published_multipredict_20", "published_nasflat_20")
        row.update(zip(names, PUBLISHED[row["task"]], strict=True))
    return found


def _search(args: argparse.Namespace) -> dict[str, Any]:
    columns = Columns(read_measurements(args.data / "latency_nasbench201"))
    index, accuracy = read_accuracy(args.data / "nasbench201_accuracy_200ep")
    if index.max() >= len(columns.data.codes):
        raise UserError("accuracies of networks without latencies", where=args.data)
    rows = search_under_limits(columns, index, accuracy, _counts(args, "10,20"), args.seeds)
    return {"n_networks": len(index), "rows": rows}


def _runtimes(args: argparse.Namespace) -> dict[str, Any]:
    folder = args.data / "mobile_ml_bench"
    return {"rows": across_runtimes(folder, _counts(args, "10,20"), args.seeds)}


def _own(args: argparse.Namespace) -> dict[str, Any]:
    space = build_space("mobilenet_v3", {"resolutions": [160]}, num_classes=1000)
    return {"rows": across_own_tables(args.data, space, _counts(args, "10,20"), args.seeds)}


PARTS = {
    "leave-out": _leave_out,
    "nasflat": _nasflat,
    "shared": lambda args: _fixed(args, SHARED),
    "search": _search,
    "runtimes": _runtimes,
    "own": _own,
}


def _counts(args: argparse.Namespace, usual: str) -> list[int]:
    try:
        return [int(n) for n in (args.n or usual).split(",")]
    except ValueError as error:
        raise UserError("--n takes whole numbers", found=args.n) from error


def _print(found: dict[str, Any]) -> None:
    for row in found["rows"]:
        shown = {k: v for k, v in row.items() if not isinstance(v, dict)}
        print(
            "  ".join(f"{k} {v:.3f}" if isinstance(v, float) else f"{v}" for k, v in shown.items())
        )
        for target, score in row.get("per_target", {}).items():
            print(f"    {target} {score:.3f}")
    for lost in found.get("not_run", []):
        print(f"not run: {lost['task']} ({lost['space']}) lacks {', '.join(lost['missing'])}")
    if worst := found.get("worst"):
        print(f"worst: {worst['column']} {worst['spearman']:.3f}")


if __name__ == "__main__":
    sys.exit(main())
