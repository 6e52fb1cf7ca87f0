"""A supernet of NAS-Bench-Macro on CIFAR-10, its ranking against the published accuracies.

    python benchmarks/nasbench_macro.py --data $DATA --work /tmp/macro               (CPU)
    python benchmarks/nasbench_macro.py --data DATA --work W --epochs 60 --archs 1000 --images 5000

The supernet trains one uniform random arch at a time; then `--archs` archs, one drawn from each of
as many equal ranges of rank, are scored on `--images` validation images with their BN recalibrated.
Printed: Kendall's tau of minus the validation loss with the truth and its 95 % interval (bootstrap
over archs), that of top-1, and MACs' alone.
Stops after --seconds with status 75, to go on when called again: training from its last checkpoint,
scoring after the last scored arch.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch

from hwnas.core.env import host_facts
from hwnas.core.rng import rng
from hwnas.core.stats import kendall_tau
from hwnas.core.store import append_jsonl, read_jsonl
from hwnas.interfaces import DatasetContext, FloatArray
from hwnas.nets.supernet import Supernet
from hwnas.spaces.cost import cost
from hwnas.studies.compare_predictors import Labels, labels_of_file
from hwnas.training.datasets import cifar10
from hwnas.training.evaluate import SupernetEvaluator
from hwnas.training.loop import train_supernet
from hwnas.training.precision import pick_device
from hwnas.training.samplers.uniform import Config as Uniform
from hwnas.training.sections import CalibrationConfig, OptimizerConfig, TrainConfig

BATCH = 128
N_TRAIN = 45_000
CALIBRATION = CalibrationConfig(n_batches=4, batch_size=128)
MORE_TO_DO = 75  # EX_TEMPFAIL
N_BOOTSTRAP = 1000


class TimeIsUp(Exception):
    """The slice is over."""


def stratified(labels: Labels, n: int, seed: int) -> np.ndarray:
    """Rows of n archs, one drawn from each of n equal ranges of rank by the truth."""
    order = np.argsort(labels.scores, kind="stable")
    stream = rng(seed, "benchmark/stratified")
    return np.array([stream.choice(part) for part in np.array_split(order, min(n, len(order)))])


def interval(scores: FloatArray, truth: FloatArray, seed: int) -> list[float]:
    """95 % of Kendall's tau over archs drawn with repeats."""
    stream = rng(seed, "benchmark/bootstrap")
    rows = stream.integers(len(truth), size=(N_BOOTSTRAP, len(truth)))
    taus = [kendall_tau(scores[drawn], truth[drawn]) for drawn in rows]
    return [round(float(q), 4) for q in np.quantile(taus, [0.025, 0.975])]


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="cifar10/, nas_bench_macro/")
    parser.add_argument("--work", type=Path, required=True, help="checkpoints and scores")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--archs", type=int, default=200)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=480.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=min(8, (os.cpu_count() or 2) - 1))
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    options = parser.parse_args()
    deadline = time.monotonic() + options.seconds
    device = pick_device(options.device)
    if device.type == "cpu":
        torch.set_num_threads(1)
    labels = labels_of_file(options.data / "nas_bench_macro/cifar10.json")
    os.environ["HWNAS_DATA"] = str(options.data)
    data = cifar10.build(cifar10.Config(), DatasetContext(options.seed, options.workers))
    steps = options.epochs * (N_TRAIN // BATCH)
    work = options.work / f"epochs{options.epochs}-seed{options.seed}"

    def tell(done: int, total: int, note: str = "") -> None:
        if done % 50 == 0 or done == total:
            print(f"{done}/{total} {note}", file=sys.stderr, flush=True)
        if time.monotonic() > deadline and done % every == 0 and done < total:
            raise TimeIsUp

    every = min(100, steps)
    config = TrainConfig(
        steps=steps,
        batch_size=BATCH,
        sampler=Uniform(),
        optimizer=OptimizerConfig(name="sgd", lr=0.1, weight_decay=4e-5, clip_norm=5.0),
        label_smoothing=0.0,
        precision="bf16" if device.type == "cuda" else "fp32",
        curve_every=max(every, steps // 10),
        checkpoint_every=every,
        calibration=CALIBRATION,
    )
    try:
        supernet = train_supernet(
            Supernet(labels.space, seed=options.seed),
            data,
            config,
            seed=options.seed,
            checkpoints=work / "steps",
            on_metrics=lambda row: append_jsonl(work / "curves.jsonl", row),
            progress=tell,
            device=device,
        )
        rows = stratified(labels, options.archs, options.seed)
        kept = work / f"scores-{options.images}.jsonl"
        known = {row["row"]: row for row in read_jsonl(kept)}
        scorer = SupernetEvaluator(
            supernet, data, CALIBRATION, seed=options.seed, n_images=options.images
        )
        for row in rows.tolist():
            if row not in known:
                if time.monotonic() > deadline:
                    raise TimeIsUp
                score = scorer.evaluate(labels.space.arch(labels.codes[row]))
                known[row] = {"row": row, "top1": score.top1, "val_loss": score.val_loss}
                append_jsonl(kept, known[row])
    except TimeIsUp:
        print("time is up; the same command goes on", file=sys.stderr)
        sys.exit(MORE_TO_DO)
    truth = labels.scores[rows]
    top1, loss = (np.array([known[r][key] for r in rows.tolist()]) for key in ("top1", "val_loss"))
    macs = cost(labels.space, labels.codes[rows], "macs").astype(np.float64)
    result = {
        "benchmark": "nasbench_macro",
        "device": device.type,
        **{key: vars(options)[key] for key in ("epochs", "images", "seed")},
        "archs": len(rows),
        "tau": round(kendall_tau(-loss, truth), 4),
        "tau_95": interval(-loss, truth, options.seed),
        "tau_of_top1": round(kendall_tau(top1, truth), 4),
        "tau_of_top1_95": interval(top1, truth, options.seed),
        "macs_tau": round(kendall_tau(macs, truth), 4),
        "mean_top1": round(float(top1.mean()), 4),
        "host": host_facts(),
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
