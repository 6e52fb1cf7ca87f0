"""Supernet training: sandwich steps, three live curves, checkpoints that resume exactly on CPU."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hwnas.core.progress import Progress, silent
from hwnas.core.records import dump
from hwnas.core.rng import stable_seed
from hwnas.interfaces import ArchSampler, DataModule
from hwnas.nets.supernet import Supernet
from hwnas.spaces.arch import Arch
from hwnas.spaces.space import SearchSpace
from hwnas.training.checkpoint import Checkpoints
from hwnas.training.config import TrainConfig
from hwnas.training.data import batches_from
from hwnas.training.distributed import ALONE, Ranks
from hwnas.training.evaluate import SupernetEvaluator
from hwnas.training.optim import Stepper
from hwnas.training.samplers import REGISTRY as SAMPLERS
from hwnas.training.sandwich import sandwich_step

__all__ = ["curve_archs", "train_supernet"]

REPORTING = {"calibration", "curve_every", "curve_images", "checkpoint_every"}
"""Settings that leave the weights as they are, and may differ when training resumes."""


def train_supernet(
    supernet: Supernet,
    data: DataModule,
    config: TrainConfig,
    *,
    seed: int,
    checkpoints: Path,
    on_metrics: Callable[[dict[str, Any]], None],
    progress: Progress = silent,
    ranks: Ranks = ALONE,
) -> None:
    """Train `supernet` in place for `config.steps` steps, continuing from the last checkpoint.

    Killed between any two moments and called again with a fresh supernet of the same seed, it ends
    with bit-identical weights on the CPU (same number of threads). The finished state is itself the
    last checkpoint, so that calling again only loads it.

    Args:
        supernet: in train mode; left so.
        data: its training images; the curves use the first `curve_images` of validation.
        config: the recipe.
        seed: of arch choices, dropout and drop-path.
        checkpoints: folder of this training alone.
        on_metrics: gets a JSON-ready row every `curve_every` steps: step, lr, the mean loss per
            slot of the sampler since the last row, and per curve `top1` and `val_loss`. After a
            resume, rows of steps past the checkpoint come again, identical.
        progress: steps done, with the last row's accuracies.
        ranks: the processes that train together: all run the same archs, each on its part of every
            batch; rank 0 alone writes checkpoints and rows.

    Raises:
        UserError: a loss is NaN or infinite; settings differ from the checkpoint's; too few images.
    """
    space = supernet.space
    sampler: ArchSampler = SAMPLERS.load(config.sampler.name).build(
        config.sampler, space, seed=seed
    )
    stepper = Stepper(supernet, config.optimizer, n_steps=config.steps)
    store = Checkpoints(checkpoints, _identity(space, data, config, seed))
    start = 0
    losses: list[list[float]] = []  # per step since the last row, per slot
    note = ""
    if (restored := store.restore(supernet, stepper.optimizer)) is not None:
        start, (losses, note) = restored
    curves = SupernetEvaluator(
        supernet, data, config.calibration, seed=seed, n_images=config.curve_images
    )
    ranks.align(start, supernet.parameters())
    progress(start, config.steps, note)
    batches = batches_from(data, config.batch_size, start, rank=ranks.rank, n_ranks=ranks.size)
    for step, (x, y) in enumerate(islice(batches, config.steps - start), start):
        stepper.start(step)
        archs = sampler.archs(step)
        own = sandwich_step(
            supernet,
            x,
            y,
            archs,
            rng=torch.Generator().manual_seed(
                stable_seed(seed, "train/dropout", step, *ranks.path)
            ),
            label_smoothing=config.label_smoothing,
            dropout=config.dropout,
            drop_path=config.drop_path,
            temperature=config.temperature,
        )
        losses.append(ranks.average(supernet.parameters(), own))
        stepper.finish(losses[-1], step=step, nets=[f"arch {arch.key}" for arch in archs])
        done = step + 1
        if not ranks.leads:
            losses = []
            continue
        if done % config.curve_every == 0 or done == config.steps:
            row = _metrics(curves, space, done, stepper.lr, losses)
            on_metrics(row)
            note = "top1 " + " ".join(f"{name} {row['top1'][name]:.3f}" for name in row["top1"])
            losses = []
        if done % config.checkpoint_every == 0 or done == config.steps:
            store.save(done, supernet, stepper.optimizer, [losses, note])
        progress(done, config.steps, note)


def curve_archs(space: SearchSpace) -> dict[str, Arch]:
    """Archs of the three curves; `middle` takes the middle allowed code of every choice."""
    middle = space.arch([codes[len(codes) // 2] for codes in space.allowed])
    return {"largest": space.largest(), "middle": middle, "smallest": space.smallest()}


def _metrics(
    curves: SupernetEvaluator, space: SearchSpace, step: int, lr: float, losses: list[list[float]]
) -> dict[str, Any]:
    scores = {name: curves.evaluate(arch) for name, arch in curve_archs(space).items()}
    return {
        "step": step,
        "lr": lr,
        "losses": [float(loss) for loss in np.mean(losses, axis=0)],
        "top1": {name: score.top1 for name, score in scores.items()},
        "val_loss": {name: score.val_loss for name, score in scores.items()},
    }


def _identity(
    space: SearchSpace, data: DataModule, config: TrainConfig, seed: int
) -> dict[str, Any]:
    return {
        "config": config.model_dump(mode="json", exclude=REPORTING),
        "seed": seed,
        "space": space.fingerprint,
        "data": dump(data.info, versioned=False),
    }
