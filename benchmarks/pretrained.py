"""Searching below a pretrained network, against what one would do with it instead.

    HWNAS_DATA=$DATA python benchmarks/pretrained.py --work /tmp/pretrained

Per data set and seed: one elastic network from the pretrained weights (`--config`), a search at 60,
40 and 25 % of the full network's latency, and at each limit, on the data set's test images, the
winner beside

- `a resolution`: the pretrained network at the largest resolution that keeps the limit, alone, at
  the better of two learning rates (`--second-lr`), by validation images;
- `b cuts`: the best uniform cut of its depth, its width, or both, by validation images, alone, at
  the largest resolution at which a cut keeps the limit;
- `c random`: five random subnets as fast as the winner by the table, fine-tuned as it is (mean);
- `d fastnas`: nvidia-modelopt's FastNAS, `e torch-pruning`: its structural pruning, each at the
  FLOPs, found by bisection, at which what it returns keeps the limit when timed, alone.

`alone`: trained for as many images as the winner saw, by the optimiser of its supernet. At most
`--max-train` training photos a data set. tiny_imagenet50 overlaps what the weights were trained on.
blood_cells saturates: it is reported, and in no claim. Limits are shares of the latency that the
table of the run gives the full network; what is timed, is timed by turns with networks of that
table. Prints JSON: accuracies, latencies and processor time per cell, and `claims`: at each limit
winner - rival as the mean over the data sets in points, with a paired 90 % interval over seeds and
images; no single cell may be significantly below (corrected for the number of cells of a rival).

`--cells` keeps every cell (data set, seed, limit, rival), `--work` the runs; a benchmark that was
cut off goes on. Cells are enough to print the result again.
`--prepare` makes what needs no timing (elastic networks, labels, predictors), for a busy machine.
`d` and `e` are installed into environments of their own, in `--environments`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from pretrained_parts import networks, rivals
from pretrained_parts.paired import Hits, hits, paired

import hwnas
from hwnas.cli.output import progress_for
from hwnas.core.env import host_facts, use_threads
from hwnas.core.overrides import assignments
from hwnas.core.store import read_json, write_json
from hwnas.pipeline.config import read_config_data
from hwnas.pipeline.project import Project
from hwnas.pipeline.start import supernet_with_head
from hwnas.pipeline.winners import result_on
from hwnas.spaces.arch import Arch
from hwnas.spaces.lowering import resolution
from hwnas.training.evaluate import EVAL_BATCH, evaluate
from hwnas.training.images import resize
from hwnas.training.npz import read_archive
from hwnas.training.photo_config import data_root
from hwnas.training.splits import stratified_split

GATED, REPORTED = ("tiny_imagenet50", "flowers5", "sign_digits"), ("blood_cells",)
LIMITS = (0.6, 0.4, 0.25)
N_RANDOM, LEVEL = 5, 0.9
OWN, OURS = ("a resolution", "b cuts", "c random"), "winner"
PRUNERS = {"d fastnas": "fastnas", "e torch-pruning": "torch-pruning"}

Cell = dict[str, Any]
"""top1, latency_ms, cpu_s of a rival at a limit; its hits lie beside it as .npy."""


def data_of(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Section `data` of a data set, of at most `--max-train` training photos."""
    shown = {"base_px": options.px, "normalise": options.normalise, "val_fraction": 0.15}
    folder = options.work / "data" / name
    for file in ("train.npz", "val.npz"):
        if not (folder / file).exists():
            most = options.max_train if file == "train.npz" else sys.maxsize
            _store(data_root(name) / file, folder / file, most)
    return {"name": "npz_jpeg", "root": str(folder.absolute()), **shown}


def _store(source: Path, target: Path, most: int) -> None:
    """A copy of an archive with at most so many images, drawn class by class."""
    labels = read_archive(source).labels
    target.parent.mkdir(parents=True, exist_ok=True)
    if len(labels) <= most:
        target.write_bytes(source.read_bytes())
        return
    random = np.random.default_rng(0)
    rows = np.sort(stratified_split(labels, (most / len(labels),), random)[0])
    with np.load(source) as stored:
        arrays = {name: stored[name] for name in stored}
    jpeg, offset = arrays["jpeg"], arrays["offset"]
    kept = [jpeg[offset[row] : offset[row + 1]] for row in rows]
    arrays |= {"jpeg": np.concatenate(kept), "offset": np.cumsum([0, *map(len, kept)])}
    arrays |= {name: arrays[name][rows] for name in ("label", "name") if name in arrays}
    np.savez(target, **arrays)


def searched(name: str, seed: int, share: float, options: argparse.Namespace) -> hwnas.Run:
    """The run of a data set and seed, up to its search at one limit."""
    limit = {"device": "local", "metric": "latency_ms", "max_fraction_of_largest": share}
    folder, search = options.work / name / f"seed{seed}", f"at{100 * share:.0f}"
    settings = {"search.name": search, "search.constraints": [limit]}
    hwnas.profile("local", run=folder, **_call(name, seed, options, settings))
    prepare(name, seed, options, settings)
    hwnas.search(folder, **_call(name, seed, options, settings))
    return hwnas.open_run(folder, search=search)


def prepare(
    name: str, seed: int, options: argparse.Namespace, settings: Mapping[str, Any] = {}
) -> None:
    """The elastic network, its labels and predictor: all that a search needs and nothing times."""
    folder, call = options.work / name / f"seed{seed}", _call(name, seed, options, settings)
    hwnas.train(folder, **call)
    hwnas.label(folder, **call)
    hwnas.predictor_fit(folder, **call)


def _call(
    name: str, seed: int, options: argparse.Namespace, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Arguments of the stages of a data set and seed."""
    changes = {**settings_of(name, seed, options), **settings}
    return {"config": base_config(options), "settings": changes, "progress": progress_for}


def base_config(options: argparse.Namespace) -> str:
    """A file of `--config`: a shipped name can be shadowed by nothing."""
    path: Path = options.work / "base.yaml"
    if not path.exists():
        path.write_text(json.dumps(read_config_data(options.config)[0]))
    return str(path)


def settings_of(name: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """What the runs of a data set and seed change in the configuration."""
    return assignments(options.set) | {"seed": seed, "data": data_of(name, options)}


def cell(folder: Path, name: str, make: Callable[[], tuple[Hits, float]]) -> tuple[Cell, Hits]:
    """A cell as it was kept, or made now; `make` gives hits and latency in ms."""
    row, kept = folder / f"{name}.json", folder / f"{name}.npy"
    if not row.exists():
        folder.mkdir(parents=True, exist_ok=True)
        started = sum(os.times()[:4])
        right, ms = make()
        np.save(kept, right.astype(np.float16))  # of test images: small enough to commit
        cpu_s = round(sum(os.times()[:4]) - started, 1)
        write_json(row, {"top1": float(right.mean()), "latency_ms": ms, "cpu_s": cpu_s})
        print(f"{folder}: {name} {right.mean():.4f}, {ms:.3f} ms", file=sys.stderr, flush=True)
    return read_json(row), np.load(kept).astype(np.float64)


def same_settings(options: argparse.Namespace) -> None:
    """Refuses cells of other settings; notes those of the first cells."""
    path, config = options.cells / "settings.json", read_config_data(base_config(options))[0]
    given = {"px": options.px, "normalise": options.normalise, "max_train": options.max_train}
    given["second_lr"] = options.second_lr
    settings = {**given, "set": assignments(options.set), "config": config}
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, settings)
    elif read_json(path) != settings:
        raise SystemExit(f"{path}: these cells have other settings; give another --cells")


def cells_at(
    name: str, seed: int, share: float, options: argparse.Namespace
) -> dict[str, tuple[Cell, Hits]]:
    """All cells of a data set, seed and limit."""
    part = Path(name) / f"seed{seed}" / f"{100 * share:.0f}"
    folder, work = options.cells / part, options.work / "cells" / part
    wanted = [OURS, *options.rivals]
    if all((folder / f"{one}.json").exists() for one in wanted):
        return {one: cell(folder, one, _never) for one in wanted}
    run = searched(name, seed, share, options)
    project = run.project
    use_threads(project.config.threads)
    result = result_on(project, project.first_device)
    winner, (limit,) = result.winner.arch, result.limits.values()
    largest, tuner = project.space.largest(), networks.Tuner(project)

    def own() -> tuple[Hits, float]:
        px = resolution(project.space, winner)
        model = tuner(winner, px, work / "winner")
        ms = networks.time_archs(project, {OURS: (project.space, winner)}, work / "own")
        return hits(model, project.data, px), ms[OURS]

    def smaller() -> tuple[Hits, float]:
        lower = networks.lower_resolution(project, limit, work / "px")
        if lower is None:
            raise SystemExit("the pretrained network keeps the limit at no resolution")
        px, ms = lower
        start, trained = supernet_with_head(project), []
        for lr in (None, options.second_lr):
            folder = work / f"smaller-{lr or 'own'}"
            model = networks.alone(project, start, largest, px, folder, lr)
            trained.append((_validation(project, model, px), model))
        best = max(trained, key=lambda pair: pair[0])[1]
        return hits(best, project.data, px), ms

    def random() -> tuple[Hits, float]:
        archs = networks.random_subnets(project, winner, N_RANDOM)
        named = {str(n): (project.space, arch) for n, arch in enumerate(archs)}
        ms = networks.time_archs(project, named, work / "random")
        found = []
        for n, arch in enumerate(archs):
            px = resolution(project.space, arch)
            model = tuner(arch, px, work / f"random{n}")
            found.append(hits(model, project.data, px))
        return np.mean(found, axis=0), float(np.mean([*ms.values()]))

    makers: dict[str, Callable[[], tuple[Hits, float]]] = {
        OURS: own,
        "a resolution": smaller,
        "b cuts": lambda: _best_cut(project, limit, work),
        "c random": random,
    }
    for one, method in PRUNERS.items():
        makers[one] = lambda method=method: _pruned(method, run, limit, work, options)
    return {one: cell(folder, one, makers[one]) for one in wanted}


def _never() -> tuple[Hits, float]:
    raise AssertionError("the cell is there")


def _validation(project: Project, model: Any, px: int) -> float:
    """Validation accuracy."""
    batches = project.data.eval_batches("val", EVAL_BATCH)
    return evaluate(model, ((resize(x, px), y) for x, y in batches)).top1


def _best_cut(project: Project, limit: float, work: Path) -> tuple[Hits, float]:
    """The uniform cut with the best validation accuracy."""
    best: tuple[float, Arch, Any] | None = None
    for n, arch in enumerate(networks.uniform_cuts(project, limit)):
        px = resolution(project.space, arch)
        start = supernet_with_head(project)
        model = networks.alone(project, start, arch, px, work / f"cut{n}")
        score = _validation(project, model, px)
        if best is None or score > best[0]:
            best = score, arch, model
    if best is None:
        raise SystemExit("no uniform cut of the space keeps the limit")
    ms = networks.time_archs(project, {"cut": (project.space, best[1])}, work / "cuts")
    return hits(best[2], project.data, resolution(project.space, best[1])), ms["cut"]


def _pruned(
    method: str, run: hwnas.Run, limit: float, work: Path, options: argparse.Namespace
) -> tuple[Hits, float]:
    folder = work / method
    if not (folder / "found.json").exists():
        rivals.pruned(method, options.environments, run.folder, limit, folder)
    found = read_json(folder / "found.json")
    if not found["found"]:
        raise SystemExit(f"{method} returns nothing that keeps {limit:.3f} ms")
    return np.load(folder / "hits.npy"), found["latency_ms"]


def claims(found: dict[tuple[str, int, float], dict[str, tuple[Cell, Hits]]], options: Any) -> Any:
    """Winner against each rival, at each limit."""
    gated = [name for name in options.data if name in GATED]
    seeds, result = range(options.seeds), {}

    def of(name: str, share: float, who: str) -> list[Hits]:
        return [found[name, seed, share][who][1] for seed in seeds]

    for rival in options.rivals:
        alone = {
            (name, share): (of(name, share, OURS), of(name, share, rival))
            for name in gated
            for share in options.limits
        }
        level = (
            1 - (1 - LEVEL) / len(alone) if alone else LEVEL
        )  # Holm's first step: whether any is below
        for share in options.limits:
            pairs = [alone[name, share] for name in gated]
            mean = paired([a for a, _ in pairs], [b for _, b in pairs], level=LEVEL)
            each = {name: paired([a], [b], level=level) for name, (a, b) in zip(gated, pairs)}
            result[f"winner - {rival} at {share:.0%}"] = {
                **mean.to_dict(),
                "cells": {name: one.to_dict() for name, one in each.items()},
                "is_gate": rival in OWN,
                "holds": mean.is_above and not any(one.is_below for one in each.values()),
            }
    return result


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="run folders, cells")
    parser.add_argument("--cells", type=Path, help="default: WORK/cells")
    parser.add_argument("--config", default="photos", help="space, weights and recipe")
    parser.add_argument("--px", type=int, default=144, help="data.base_px")
    parser.add_argument("--normalise", default="inception", help="as the weights were trained")
    parser.add_argument("--data", type=_listed, default=[*GATED, *REPORTED])
    parser.add_argument("--rivals", type=_listed, default=[*OWN, *PRUNERS])
    parser.add_argument("--limits", type=lambda text: [*map(float, _listed(text))], default=LIMITS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--max-train", type=int, default=4000)
    parser.add_argument("--second-lr", type=float, default=3e-4, help="of rival a")
    parser.add_argument("--prepare", action="store_true", help="time nothing, then stop")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    default = Path("~/.cache/hwnas-benchmarks").expanduser()
    parser.add_argument("--environments", type=Path, default=default)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    options.cells = options.cells or options.work / "cells"
    if options.prepare:
        for seed in range(options.seeds):
            for name in options.data:
                prepare(name, seed, options)
        return
    same_settings(options)
    found = {
        (name, seed, share): cells_at(name, seed, share, options)
        for seed in range(options.seeds)
        for name in options.data
        for share in options.limits
    }
    rows = [
        {"data": name, "seed": seed, "limit": share, "network": who, **row}
        for (name, seed, share), cells in found.items()
        for who, (row, _) in cells.items()
    ]
    report = {
        "benchmark": "pretrained",
        "config": options.config,
        "settings": options.set,
        "max_train": options.max_train,
        "claims": claims(found, options),
        "cells": rows,
        "host": host_facts(),
    }
    print(json.dumps(report, indent=1))


def _listed(text: str) -> list[str]:
    return text.split(",")


if __name__ == "__main__":
    main()
