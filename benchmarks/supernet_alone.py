"""What sharing weights costs in accuracy: three subnets of a run, and the same three trained alone.

    HWNAS_DATA=$DATA hwnas run cifar10_cpu
    HWNAS_DATA=$DATA python benchmarks/supernet_alone.py runs/cifar10_cpu --work /tmp/alone

The largest, the middle and the smallest subnet (those of the training curves) of a finished run are
scored on all its validation images with the supernet's weights, and again after each was trained
from fresh weights by the supernet's own recipe (optimiser, batch size, augmentation, smoothing,
seed). Alone, each sees as many images, to the nearest whole epoch, as the supernet's training read:
there the largest and the smallest saw them all, the middle one hardly any. Stop it at any time: the
same command goes on after the last epoch in --work.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from hwnas.cli.output import progress_for
from hwnas.core.env import host_facts, use_threads
from hwnas.core.store import read_json, write_json
from hwnas.interfaces import Evaluation
from hwnas.pipeline.evaluators import evaluator
from hwnas.pipeline.opening import open_project
from hwnas.pipeline.project import Project
from hwnas.spaces.arch import Arch
from hwnas.spaces.cost import cost
from hwnas.training.curves import curve_archs
from hwnas.training.sections import FinetuneConfig
from hwnas.training.standalone import StandaloneEvaluator


def recipe_of(project: Project) -> FinetuneConfig:
    """The supernet's recipe for one network, of the nearest whole number of epochs."""
    train = project.config.train
    per_epoch = project.data.info.n_images["train"] // train.batch_size
    return FinetuneConfig(
        epochs=max(1, round(train.steps / per_epoch)),
        batch_size=train.batch_size,
        optimizer=train.optimizer,
        label_smoothing=train.label_smoothing,
        distillation=0.0,
        precision=train.precision,
        calibration=project.config.label.calibration,
    )


def alone(project: Project, name: str, arch: Arch, work: Path) -> dict[str, Any]:
    """The arch trained alone, or what an earlier call kept of it. CPU seconds are of one call."""
    path = work / f"{name}.json"
    if not path.exists():
        scorer = StandaloneEvaluator(
            project.space,
            project.data,
            recipe_of(project),
            seed=project.config.seed,
            checkpoints=work,
            progress=project.progress_for(name),
            device=project.accelerator,
        )
        started = time.process_time()
        score = scorer.evaluate(arch)
        write_json(
            path,
            {
                "top1": score.top1,
                "val_loss": score.val_loss,
                "n_train_images_seen": score.n_train_images_seen,
                "cpu_s": round(time.process_time() - started, 1),
            },
        )
    found: dict[str, Any] = read_json(path)
    return found


def row(project: Project, name: str, arch: Arch, inherited: Evaluation, work: Path) -> Any:
    """Both scores of one subnet."""
    own = alone(project, name, arch, work)
    print(f"{name}: {inherited.top1:.4f}, alone {own['top1']:.4f}", file=sys.stderr, flush=True)
    return {
        "name": name,
        "macs": int(cost(project.space, project.space.codes([arch]), "macs")[0]),
        "supernet_top1": inherited.top1,
        "supernet_val_loss": inherited.val_loss,
        **{f"alone_{key}": value for key, value in own.items()},
    }


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="a run folder whose supernet is trained")
    parser.add_argument("--work", type=Path, required=True, help="checkpoints and results")
    options = parser.parse_args()
    with open_project(
        options.run, progress_for=progress_for, command="benchmark", read_only=True
    ) as project:
        use_threads(project.config.threads)
        archs = curve_archs(project.space)
        scorer = evaluator(project)
        inherited = {name: scorer.fresh(arch) for name, arch in archs.items()}
        rows = [
            row(project, name, arch, inherited[name], options.work) for name, arch in archs.items()
        ]
        train, ledger = project.config.train, project.run.ledger()
        print(
            json.dumps(
                {
                    "benchmark": "supernet_alone",
                    "run": project.config.name,
                    "seed": project.config.seed,
                    "n_val_images": inherited["largest"].n_images,
                    "supernet_n_train_images_seen": train.steps * train.batch_size,
                    "supernet_train_s": ledger["train"].seconds,
                    "subnets": rows,
                    "host": host_facts(),
                },
                indent=1,
            )
        )


if __name__ == "__main__":
    main()
