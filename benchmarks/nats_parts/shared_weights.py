"""A supernet of reduced NATS-Bench topology on CIFAR-10, and its scores of cells."""

from __future__ import annotations

import argparse
import json
import sys
from functools import cached_property
from pathlib import Path

import numpy as np

from hwnas.core.config import build_model
from hwnas.core.store import append_jsonl, read_jsonl
from hwnas.interfaces import DatasetContext, FloatArray
from hwnas.nets.supernet import Supernet
from hwnas.pipeline.evaluators import scores_of
from hwnas.spaces.load import build_space
from hwnas.spaces.space import Codes
from hwnas.training.datasets import npz_jpeg
from hwnas.training.evaluate import SupernetEvaluator
from hwnas.training.loop import train_supernet
from hwnas.training.photo_config import AugmentConfig
from hwnas.training.sections import CalibrationConfig, TrainConfig

REDUCED = {"resolutions": [16], "width": 8, "cells_per_stage": 2}
CALIBRATION = {"n_batches": 4, "batch_size": 64}
TRAIN = {
    "batch_size": 64,
    "sampler": {"name": "uniform"},
    "optimizer": {"lr": 1e-2, "weight_decay": 1e-2},
    "calibration": CALIBRATION,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `Shared`."""
    parser.add_argument("--data", type=Path, required=True, help="folder with the benchmarks")
    parser.add_argument("--work", type=Path, required=True, help="checkpoints of the supernet")
    parser.add_argument(
        "--scores",
        type=Path,
        default=Path(__file__).parent.parent / "measured" / "nats_supernet.jsonl",
        help="supernet scores",
    )
    parser.add_argument("--steps", type=int, default=24_000, help="of supernet training")


def stated(values: FloatArray) -> dict[str, float]:
    """Mean over seeds, and its standard error."""
    error = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0
    return {"mean": round(float(values.mean()), 4), "standard_error": round(error, 4)}


class Shared:
    """Supernet scores of cells, from a file; the supernet is trained if one is missing."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        path = options.scores
        rows = read_jsonl(path) if path.exists() else []
        self._known = {tuple(row["codes"]): float(row["score"]) for row in rows}

    space = build_space("nats_topology", REDUCED, num_classes=10)

    @cached_property
    def _scorer(self) -> SupernetEvaluator:
        options = self._options
        config = npz_jpeg.Config(
            root=str(options.data / "cifar10"),
            base_px=16,
            val_fraction=1000 / 50_000,
            augment=AugmentConfig(),
        )
        images = npz_jpeg.build(config, DatasetContext(0))
        space = self.space
        settings = {**TRAIN, "steps": options.steps, "curve_every": options.steps}
        net = train_supernet(
            Supernet(space, seed=0),
            images,
            build_model(TrainConfig, settings, where="train"),
            seed=0,
            checkpoints=options.work / "checkpoints",
            on_metrics=lambda row: print(json.dumps(row), file=sys.stderr, flush=True),
        )
        calibration = build_model(CalibrationConfig, CALIBRATION, where="calibration")
        return SupernetEvaluator(net, images, calibration, seed=0)

    def __call__(self, codes: Codes) -> FloatArray:
        """Scores [n] of cells [n, d]."""
        return np.array([self._score(tuple(row)) for row in codes[:, 1:].tolist()])

    def _score(self, cell: tuple[int, ...]) -> float:
        if cell not in self._known:
            found = self._scorer.evaluate(self.space.arch((0, *cell)))
            self._known[cell] = round(float(scores_of([found])[0]), 6)
            append_jsonl(self._options.scores, {"codes": cell, "score": self._known[cell]})
        return self._known[cell]
