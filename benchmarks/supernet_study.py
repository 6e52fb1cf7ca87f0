"""What ranks subnets best: ways to train a supernet, against archs that were trained alone.

    python benchmarks/supernet_study.py truth --out benchmarks/supernet_study_truth.json
    hwnas profile local --space digits_study --num-classes 10 --out /tmp/digits_study.json
    python benchmarks/supernet_study.py rows --table /tmp/digits_study.json --cells /tmp/study

243 archs (`configs/spaces/digits_study.yaml`) on noisy digits at 16 px, the study of 2010.08219 in
miniature. `truth` trains 30 archs alone, each from two seeds; how well those two agree is the most
that a supernet can reach. `rows` trains supernets, with equal numbers of forward passes (1,200)
and with equal numbers of steps (300), and says how each ranks the 30 archs: Kendall's tau of
validation accuracy and of minus validation loss, with BN statistics recalibrated for the arch, and
with those that training left behind. Ranking by MACs is the floor. A cell (one supernet) takes
half a minute to two minutes of a core and is kept in --cells; a run that was cut off goes on.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from hwnas.core.config import build_model
from hwnas.core.env import host_facts
from hwnas.core.rng import rng
from hwnas.core.stats import kendall_tau
from hwnas.core.store import read_json, write_json
from hwnas.interfaces import CostMetric, DataModule, DatasetContext, FloatArray
from hwnas.latency.estimator import TableEstimator
from hwnas.latency.table import LatencyTable
from hwnas.nets.definition import timm_names
from hwnas.nets.extract import extract
from hwnas.nets.subnet import placed_slots
from hwnas.nets.supernet import Supernet
from hwnas.spaces.arch import Arch
from hwnas.spaces.cost import cost
from hwnas.spaces.load import build_space
from hwnas.spaces.space import SearchSpace
from hwnas.training.data import batches_from
from hwnas.training.datasets import digits
from hwnas.training.evaluate import SupernetEvaluator, evaluate
from hwnas.training.loop import train_supernet
from hwnas.training.sections import CalibrationConfig, FinetuneConfig, OptimizerConfig, TrainConfig
from hwnas.training.standalone import StandaloneEvaluator

TRUTH = Path(__file__).with_name("supernet_study_truth.json")
N_ARCHS, N_SEEDS, BATCH = 30, 2, 64
N_PASSES, N_STEPS = 1200, 300
N_STALE = 100  # archs whose batches make the running statistics; older ones have faded away
CALIBRATION = CalibrationConfig(n_batches=4, batch_size=128)
STILL = digits.Warp(rotate_degrees=0.0, scale=0.0, shear=0.0, shift=0.0, elastic=0.0)
DATA = digits.Config(
    base_px=16, val_fraction=0.43, test_fraction=0.01, noise_std=0.8, augment=STILL
)
OPTIMIZER = {"lr": 1e-2}

Row = dict[str, Any]
ROWS: dict[str, tuple[int, Row]] = {
    "uniform": (1, {"sampler": {"name": "uniform"}}),
    "fair": (3, {"sampler": {"name": "fair"}}),
    "sandwich": (4, {}),
    "sandwich + rank loss, MACs": (8, {"ranking": {"prior": {"name": "macs"}}}),
    "sandwich + rank loss, Zen-Score": (8, {"ranking": {"prior": {"name": "zen", "px": 16}}}),
    "sandwich + rank loss, latency": (8, {"ranking": {"prior": {"name": "latency"}}}),
    "sandwich, weak sharing": (4, {"weak_sharing": True}),
    "sandwich, swish behind the sum": (4, {"out_act": "swish"}),
    "sandwich, balanced over MACs": (4, {"sampler": {"name": "balanced"}}),
}
"""Forward passes per step, and what differs from the default recipe."""
EQUAL_STEPS = tuple(ROWS)[:5]


def study_space(*, out_act: str = "none") -> SearchSpace:
    """The 243 archs; `out_act` behind every residual sum changes no code of an arch."""
    space = build_space("digits_study", num_classes=10)
    if out_act == "none":
        return space
    settings = [f"stages.{stage}.out_act={out_act}" for stage in range(3)]
    return build_space("digits_study", settings, num_classes=10)


def study_archs(space: SearchSpace) -> list[Arch]:
    """The archs of the truth: distinct, drawn uniformly."""
    drawn = space.sample(4 * N_ARCHS, rng=rng(0, "study/archs"))
    first = np.sort(np.unique(drawn, axis=0, return_index=True)[1])[:N_ARCHS]
    return [space.arch(row) for row in drawn[first]]


def truth(checkpoints: Path) -> Row:
    """Every arch trained alone, from every seed."""
    space, data = study_space(), digits.build(DATA, DatasetContext(0))
    recipe = FinetuneConfig(
        epochs=10,
        batch_size=BATCH,
        distillation=0.0,
        optimizer=OptimizerConfig(**OPTIMIZER),
        calibration=CALIBRATION,
    )
    found = []
    for arch in study_archs(space):
        scores = [
            StandaloneEvaluator(
                space, data, recipe, seed=seed, checkpoints=checkpoints / str(seed)
            ).evaluate(arch)
            for seed in range(N_SEEDS)
        ]
        found.append(
            {
                "codes": list(arch.codes),
                "top1": [score.top1 for score in scores],
                "val_loss": [score.val_loss for score in scores],
            }
        )
        print(f"{len(found)}/{N_ARCHS} {found[-1]['top1']}", file=sys.stderr, flush=True)
    return {"schema_version": 1, "recipe": recipe.model_dump(mode="json"), "archs": found}


def cell(
    row: str,
    steps: int,
    seed: int,
    known: Row,
    metrics: dict[str, CostMetric],
    checkpoints: Path,
) -> Row:
    """One supernet, and how it ranks the archs of `known`."""
    settings = dict(ROWS[row][1])
    space = study_space(out_act=settings.pop("out_act", "none"))
    weak = settings.pop("weak_sharing", False)
    config = build_model(
        TrainConfig,
        {
            "steps": steps,
            "batch_size": BATCH,
            "optimizer": OPTIMIZER,
            "curve_every": steps,
            "checkpoint_every": steps,
            **settings,
        },
        where=row,
    )
    data = digits.build(DATA, DatasetContext(0))
    supernet = Supernet(space, seed=seed, weak=weak)
    started = time.process_time()
    trained = train_supernet(
        supernet,
        data,
        config,
        seed=seed,
        checkpoints=checkpoints,
        on_metrics=lambda _: None,
        metrics=metrics,
    )
    seconds = time.process_time() - started
    archs = [space.arch(arch["codes"]) for arch in known["archs"]]
    scorer = SupernetEvaluator(trained, data, CALIBRATION, seed=seed)
    fresh = [scorer.evaluate(arch) for arch in archs]
    memory = left_behind(trained, data, seed)
    stale = [evaluate(memory(arch), data.eval_batches("val", 128)) for arch in archs]
    accuracy, loss = (np.mean([a[key] for a in known["archs"]], 1) for key in ("top1", "val_loss"))
    return {
        "row": row,
        "steps": steps,
        "seed": seed,
        "train_cpu_s": round(seconds, 1),
        "mean_top1": float(np.mean([score.top1 for score in fresh])),
        "mean_top1_stale": float(np.mean([score.top1 for score in stale])),
        **taus(accuracy, loss, [(e.top1, e.val_loss) for e in fresh], ""),
        **taus(accuracy, loss, [(s.top1, s.cross_entropy) for s in stale], "_stale"),
    }


def taus(accuracy: FloatArray, loss: FloatArray, found: Iterable[Any], suffix: str) -> Row:
    """Kendall's tau with the truth, of accuracies and of minus losses."""
    top1, val_loss = np.array(list(found), dtype=np.float64).T
    return {
        f"tau_top1{suffix}": kendall_tau(top1, accuracy),
        f"tau_loss{suffix}": kendall_tau(-val_loss, -loss),
    }


def left_behind(supernet: Supernet, data: DataModule, seed: int) -> Callable[[Arch], nn.Module]:
    """Subnets with the running BN statistics that training archs one after another leaves behind.

    One running mean and variance per BN of the supernet, moved by a tenth by every batch of every
    arch that has it, as in supernets that keep statistics.
    """
    space = supernet.space
    kept: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    def norms(arch: Arch, model: nn.Module) -> Iterable[tuple[str, _BatchNorm]]:
        places = {slot: place for slot, place, _ in placed_slots(space, arch)}
        for node in supernet.plan(arch):
            for site in node.all_sites:
                if site.bn_path:
                    name = timm_names(places[node.slot], node.op, site.layer)[1]
                    norm = model.get_submodule(name)
                    assert isinstance(norm, _BatchNorm)
                    yield site.bn_path, norm

    def with_memory(arch: Arch) -> nn.Module:
        model = extract(supernet, arch)
        for path, norm in norms(arch, model):
            norm.momentum = 0.1
            if path in kept:
                norm.running_mean, norm.running_var = (value.clone() for value in kept[path])
        return model.eval()

    drawn = space.sample(N_STALE, rng=rng(seed, "study/stale"))
    with torch.inference_mode(False), torch.no_grad():
        for row, (x, _) in zip(drawn, batches_from(data, BATCH, 0)):
            arch = space.arch(row)
            model = with_memory(arch).train()
            model(x)
            for path, norm in norms(arch, model):
                assert norm.running_mean is not None and norm.running_var is not None
                kept[path] = norm.running_mean, norm.running_var
    return with_memory


def floor_and_ceiling(known: Row) -> Row:
    """What MACs alone reach, and two trainings of the same archs."""
    space = study_space()
    codes = space.codes([space.arch(arch["codes"]) for arch in known["archs"]])
    top1, loss = (np.array([arch[key] for arch in known["archs"]]) for key in ("top1", "val_loss"))
    macs = cost(space, codes, "macs").astype(np.float64)
    return {
        "macs_tau_top1": kendall_tau(macs, top1.mean(1)),
        "macs_tau_loss": kendall_tau(macs, -loss.mean(1)),
        "seeds_tau_top1": kendall_tau(top1[:, 0], top1[:, 1]),
        "seeds_tau_loss": kendall_tau(loss[:, 0], loss[:, 1]),
        "top1_range": [float(top1.mean(1).min()), float(top1.mean(1).max())],
    }


def table(cells: list[Row]) -> str:
    """Markdown: mean and standard deviation over seeds."""
    columns = ("mean_top1", "tau_top1", "tau_loss", "tau_top1_stale", "tau_loss_stale")
    lines = [f"| supernet | steps | {' | '.join(columns)} |", "|---" * (len(columns) + 2) + "|"]
    for key in dict.fromkeys((c["row"], c["steps"]) for c in cells):
        own = [c for c in cells if (c["row"], c["steps"]) == key]
        values = [np.array([c[column] for c in own]) for column in columns]
        shown = [f"{v.mean():.2f} +- {v.std():.2f}" for v in values]
        lines.append(f"| {key[0]} | {key[1]} | {' | '.join(shown)} |")
    return "\n".join(lines)


def plan(rows: list[str], n_seeds: int) -> list[tuple[str, int, int]]:
    """Cells: row, steps, seed."""
    found = []
    for row in rows:
        budgets = {N_PASSES // ROWS[row][0]} | ({N_STEPS} if row in EQUAL_STEPS else set())
        found += [(row, steps, seed) for steps in sorted(budgets) for seed in range(n_seeds)]
    return found


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["truth", "rows"])
    parser.add_argument("--out", type=Path, default=TRUTH, help="of truth")
    parser.add_argument("--table", type=Path, help="latency table of the space, for its prior")
    parser.add_argument("--cells", type=Path, default=Path("/tmp/hwnas-study"))
    parser.add_argument("--rows", nargs="*", choices=list(ROWS), help="default: all")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--format", choices=["json", "table"], default="table")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.what == "truth":
        write_json(arguments.out, truth(arguments.cells / "alone"))
        return
    known = read_json(TRUTH)
    metrics: dict[str, CostMetric] = {}
    rows = arguments.rows or [row for row in ROWS if arguments.table or "latency" not in row]
    if arguments.table:
        estimator = TableEstimator(LatencyTable.load(arguments.table), study_space())
        metrics["latency_ms@local"] = estimator.latency_ms
    space = study_space()
    metrics["macs"] = lambda codes: cost(space, codes, "macs").astype(np.float64)
    cells = []
    for row, steps, seed in plan(rows, arguments.seeds):
        path = arguments.cells / f"{row}-{steps}-{seed}.json".replace(" ", "_").replace(",", "")
        if not path.exists():
            checkpoints = path.with_suffix("")
            write_json(path, cell(row, steps, seed, known, metrics, checkpoints))
        cells.append(read_json(path))
        print(
            f"{row}, {steps} steps, seed {seed}: tau {cells[-1]['tau_top1']:.3f}", file=sys.stderr
        )
    if arguments.format == "json":
        print(json.dumps({"host": host_facts(), **floor_and_ceiling(known), "cells": cells}))
    else:
        print(json.dumps(floor_and_ceiling(known), indent=1), table(cells), sep="\n\n")


if __name__ == "__main__":
    main()
