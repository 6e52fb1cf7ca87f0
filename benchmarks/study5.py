"""How does a supernet help? (2010.08219), over several kinds of search spaces.

    python benchmarks/study5.py --quick                        # minutes: that it runs, not a result
    python benchmarks/study5.py --data DATA --out study5.json  # hours of processor time per space

Per space, supernets are trained by uniform single path and by fair sampling (nats_topology) or the
sandwich rule, with equal numbers of forward passes. 30 random archs
are trained stand-alone with two seeds each; their mean is the truth. Rankings by both supernets, by
MACs, parameters, NASWOT and SynFlow are compared with it: correlations within the true top, picks,
recall after pruning, bias per choice, with 90 % bootstrap intervals over archs, next to the
agreement of the two seeds. Published accuracies of full-size networks are a second truth: for
nats_topology after 200 epochs (DATA/nasbench201_accuracy), for darts after 600 epochs
(DATA/darts_random214, from whose cells the archs of darts are drawn).

Networks are reduced (`SPACES`): widths, cells per stage and images of 16 px (proxyless: enlarged to
its least, 32 px). darts is trained half as long. Results are about these networks and trainings.
DATA holds `cifar10`. Every training is kept in --cells; a run that was cut off goes on. The
processor time of each is part of the result.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hwnas.analysis.advice import advice
from hwnas.analysis.bias import bias_report
from hwnas.analysis.noise import noise_ceiling
from hwnas.analysis.ranks import rank_report
from hwnas.core.config import build_model
from hwnas.core.env import host_facts
from hwnas.core.records import dump
from hwnas.core.rng import rng
from hwnas.core.store import read_json, write_json
from hwnas.interfaces import DataModule, DatasetContext, FloatArray, ProxyContext
from hwnas.nets.proxies import REGISTRY as PROXIES
from hwnas.nets.supernet import Supernet
from hwnas.predictors.open_records import open_records
from hwnas.spaces.arch import Arch
from hwnas.spaces.graphs import is_connected
from hwnas.spaces.load import build_space
from hwnas.spaces.space import SearchSpace
from hwnas.training.datasets import digits, npz_jpeg
from hwnas.training.evaluate import SupernetEvaluator
from hwnas.training.loop import train_supernet
from hwnas.training.photo_config import AugmentConfig
from hwnas.training.sections import CalibrationConfig, FinetuneConfig, TrainConfig
from hwnas.training.standalone import StandaloneEvaluator

Row = dict[str, Any]

PX = 16
SPACES: dict[str, Row] = {
    "proxyless": {
        "settings": {"resolutions": [32], "widths": [16, 8, 8, 16, 24, 32, 48, 64, 128]},
        "samplers": ("uniform", "sandwich"),
    },
    "nats_topology": {
        "settings": {"resolutions": [PX], "width": 8, "cells_per_stage": 2},
        "samplers": ("uniform", "fair"),
    },
    "nasbench101": {
        "settings": {"resolutions": [PX], "width": 16, "cells_per_stage": 1},
        "samplers": ("uniform", "sandwich"),
    },
    "darts": {  # a pass takes three times as long as one of the other spaces
        "settings": {"resolutions": [PX], "width": 4, "n_cells": 4},
        "samplers": ("uniform", "sandwich"),
        "size": {"epochs": 2, "n_passes": 16_000},
    },
}
PUBLISHED = {
    "nats_topology": ("nasbench201_accuracy/accuracy.csv", "cifar10_test_200ep", 200),
    "darts": ("darts_random214/records.json", "top1", 600),
}
"""Stand-alone accuracies on CIFAR-10: the file below DATA, its column, and the epochs."""
N_NETS = {"uniform": 1, "sandwich": 4}
"""Networks per step; `fair` trains as many as the choice with the most values has."""
PROXY_NAMES = ("macs", "params", "naswot", "synflow")
LEARNING = {"lr": 1e-2, "weight_decay": 1e-2}
CALIBRATION = {"n_batches": 4, "batch_size": 64}


@dataclass(frozen=True)
class Size:
    """How much is trained."""

    n_archs: int = 30
    n_seeds: int = 2
    epochs: int = 4
    n_passes: int = 24_000
    batch_size: int = 64


QUICK = Size(n_archs=10, epochs=1, n_passes=28, batch_size=32)


@dataclass(frozen=True)
class Study:
    """One space with its data; results are files in `cells`."""

    name: str
    size: Size
    data: DataModule
    cells: Path
    published: Path | None

    @property
    def space(self) -> SearchSpace:
        """The reduced space."""
        return build_space(
            self.name,
            SPACES[self.name]["settings"],
            num_classes=self.data.info.num_classes,
            in_channels=self.data.info.in_channels,
        )

    def archs(self) -> list[Arch]:
        """Distinct random archs with a path to the logits; published ones if there are any."""
        space = self.space
        drawn = space.sample(40 * self.size.n_archs, rng=rng(0, "study5/archs"))
        if self.published is not None:
            published = self._published().codes
            known = {tuple(row[1:]) for row in published.tolist()}
            drawn = drawn[[tuple(row[1:]) in known for row in drawn.tolist()]]
            if len(drawn) < self.size.n_archs:  # a space too large to meet them by chance
                drawn = rng(0, "study5/published").permutation(published)
        drawn = drawn[is_connected(space, drawn)]
        first = np.sort(np.unique(drawn, axis=0, return_index=True)[1])[: self.size.n_archs]
        return [space.arch(row) for row in drawn[first]]

    def _published(self) -> Any:
        assert self.published is not None
        return open_records(self.published).records(PUBLISHED[self.name][1])

    def kept(self, key: str, make: Callable[[], Row]) -> Row:
        """The result `key`, from its file if there is one; with its processor time."""
        path = self.cells / self.name / f"{key}.json"
        if not path.exists():
            start = time.process_time()
            found = make()
            write_json(path, {**found, "cpu_s": round(time.process_time() - start, 1)})
            print(f"{self.name} {key}: {read_json(path)['cpu_s']} s", file=sys.stderr, flush=True)
        row: Row = read_json(path)
        return row

    def trained(self, arch: Arch, seed: int) -> Row:
        """Validation top-1 of an arch that is trained stand-alone."""
        recipe = build_model(
            FinetuneConfig,
            {
                "epochs": self.size.epochs,
                "batch_size": self.size.batch_size,
                "distillation": 0.0,
                "optimizer": LEARNING,
                "calibration": CALIBRATION,
            },
            where="recipe",
        )
        folder = self.cells / self.name / "checkpoints" / str(seed)
        alone = StandaloneEvaluator(self.space, self.data, recipe, seed=seed, checkpoints=folder)
        return {"top1": alone.evaluate(arch).top1}

    def supernet(self, sampler: str) -> Row:
        """Top-1 of all archs with the weights of a supernet."""
        most = max(len(allowed) for allowed in self.space.allowed)
        n_nets = N_NETS.get(sampler, most)
        steps = max(2, self.size.n_passes // n_nets)
        config = build_model(
            TrainConfig,
            {
                "steps": steps,
                "batch_size": self.size.batch_size,
                "sampler": {"name": sampler},
                "optimizer": LEARNING,
                "calibration": CALIBRATION,
                "curve_every": steps,
            },
            where="train",
        )
        folder = self.cells / self.name / "checkpoints" / sampler
        net = train_supernet(
            Supernet(self.space, seed=0),
            self.data,
            config,
            seed=0,
            checkpoints=folder,
            on_metrics=lambda row: None,
        )
        calibration = build_model(CalibrationConfig, CALIBRATION, where="calibration")
        scorer = SupernetEvaluator(net, self.data, calibration, seed=0)
        return {"top1": [scorer.evaluate(arch).top1 for arch in self.archs()], "steps": steps}

    def proxies(self) -> Row:
        """Scores without training, by name."""
        space, codes = self.space, self.space.codes(self.archs())
        images = self.data.calibration_batches(1, 32)[0]
        context = ProxyContext(space, 0, {m: _price(space, m) for m in ("macs", "params")}, images)
        found = {}
        for name in PROXY_NAMES:
            module = PROXIES.load(name)
            found[name] = module.build(module.Config(), context)(codes).tolist()
        return found

    def result(self) -> Row:
        """All rankings against the truth."""
        archs, space = self.archs(), self.space
        codes = space.codes(archs)
        repeats = np.array(
            [
                [
                    self.kept(f"alone-{i:02}-{seed}", lambda a=arch, s=seed: self.trained(a, s))[
                        "top1"
                    ]
                    for seed in range(self.size.n_seeds)
                ]
                for i, arch in enumerate(archs)
            ]
        )
        scores: dict[str, FloatArray] = {}
        for sampler in SPACES[self.name]["samplers"]:
            row = self.kept(f"supernet-{sampler}", lambda s=sampler: self.supernet(s))
            scores[f"supernet, {sampler}"] = np.array(row["top1"])
        proxies = self.kept("proxies", self.proxies)
        scores |= {name: np.array(proxies[name], dtype=np.float64) for name in PROXY_NAMES}
        truths = {"stand-alone": repeats.mean(axis=1)}
        if self.published is not None:
            records = self._published()
            known = {
                tuple(row[1:]): value
                for row, value in zip(records.codes.tolist(), records.scores, strict=True)
            }
            name = f"published, {PUBLISHED[self.name][2]} epochs"
            truths[name] = np.array([known[arch.codes[1:]] for arch in archs])
        rankings = {
            truth_name: {
                name: _judged(space, codes, values, truth) for name, values in scores.items()
            }
            for truth_name, truth in truths.items()
        }
        return {
            "space": space.id,
            "settings": SPACES[self.name]["settings"],
            "n_archs": len(archs),
            "top1_range": [float(repeats.mean(axis=1).min()), float(repeats.mean(axis=1).max())],
            "ceiling": dump(noise_ceiling(repeats), versioned=False),
            "rankings": rankings,
            "verdict": {truth: _verdict(rows) for truth, rows in rankings.items()},
        }


def _price(space: SearchSpace, metric: Any) -> Callable[[Any], FloatArray]:
    return lambda codes: space.cost(codes, metric).astype(np.float64)


def _judged(space: SearchSpace, codes: Any, scores: FloatArray, truth: FloatArray) -> Row:
    ranks, bias = rank_report(scores, truth, seed=0), bias_report(space, codes, scores, truth)
    return {
        "ranks": dump(ranks, versioned=False),
        "bias": dump(bias, versioned=False),
        "advice": list(advice(ranks, bias)),
    }


def _verdict(rows: Row) -> str:
    """The best supernet against the best ranking without training, with intervals."""

    def tau(name: str) -> Row:
        found: Row = rows[name]["ranks"]["correlations"][0]["kendall_tau"]
        return found

    def text(name: str) -> str:
        found = tau(name)
        return f"{name} {found['value']:.2f} ({found['low']:.2f} to {found['high']:.2f})"

    nets = [name for name in rows if name.startswith("supernet")]
    best = max(nets, key=lambda name: float(tau(name)["value"]))
    free = max(set(rows) - set(nets), key=lambda name: float(tau(name)["value"]))
    if tau(best)["low"] > tau(free)["high"]:
        what = "The supernet ranks better than any score without training"
    elif tau(free)["low"] > tau(best)["high"]:
        what = "A score without training ranks better than the supernet"
    else:
        what = "The supernet and the best score without training cannot be told apart"
    return f"{what}: tau of {text(best)}, {text(free)}."


def _data(arguments: argparse.Namespace) -> DataModule:
    if arguments.quick:
        config = digits.Config(base_px=PX, val_fraction=0.15, test_fraction=0.6, noise_std=0.5)
        gray: DataModule = digits.build(config, DatasetContext(0))
        return gray
    photo_config = npz_jpeg.Config(
        root=str(arguments.data / "cifar10"), base_px=PX, augment=AugmentConfig()
    )
    photos: DataModule = npz_jpeg.build(photo_config, DatasetContext(0))
    return photos


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder with cifar10, and those of PUBLISHED")
    parser.add_argument("--spaces", nargs="*", choices=list(SPACES), default=list(SPACES))
    parser.add_argument("--cells", type=Path, default=Path("/tmp/hwnas-study5"))
    parser.add_argument("--out", type=Path, help="default: standard output")
    parser.add_argument("--quick", action="store_true", help="tiny, on digits")
    arguments = parser.parse_args()
    if arguments.data is None and not arguments.quick:
        parser.error("give --data, or --quick")
    torch.set_num_threads(1)
    data, found = _data(arguments), {}
    for name in arguments.spaces:
        has_records = name in PUBLISHED and arguments.data is not None
        study = Study(
            name=name,
            size=QUICK if arguments.quick else Size(**SPACES[name].get("size", {})),
            data=data,
            cells=arguments.cells / ("quick" if arguments.quick else "full"),
            published=arguments.data / PUBLISHED[name][0] if has_records else None,
        )
        found[name] = study.result()
        times = [read_json(p)["cpu_s"] for p in (study.cells / name).glob("*.json")]
        found[name]["cpu_hours"] = round(sum(times) / 3600, 2)
        for truth, verdict in found[name]["verdict"].items():
            print(f"{name}, {truth}: {verdict}", file=sys.stderr)
    result = {"host": host_facts(), "spaces": found}
    if arguments.out is None:
        print(json.dumps(result))
    else:
        write_json(arguments.out, result)


if __name__ == "__main__":
    main()
