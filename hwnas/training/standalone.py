"""Stand-alone accuracy: every arch is trained from initial weights. Expensive ground truth."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch

from hwnas.core.progress import Progress, silent
from hwnas.interfaces import DataModule, Evaluation
from hwnas.nets.subnet import build_subnet
from hwnas.spaces.arch import Arch
from hwnas.spaces.cost import cost
from hwnas.spaces.lowering import resolution
from hwnas.spaces.space import SearchSpace
from hwnas.training.data import placed
from hwnas.training.evaluate import EVAL_BATCH, evaluate
from hwnas.training.finetune import finetune
from hwnas.training.images import resize
from hwnas.training.losses import by_position
from hwnas.training.precision import CPU, place, wait_for
from hwnas.training.sections import FinetuneConfig

__all__ = ["StandaloneEvaluator", "images_seen", "training_seconds"]

N_WARM_UP, N_TIMED = 1, 3  # steps


class StandaloneEvaluator:
    """An `Evaluator` that trains every arch from initial weights by one recipe, without a teacher.

    Args:
        space: the space of the archs.
        data: source of the images; scores are on the validation split.
        recipe: the training settings; distillation is not used.
        seed: seed of the initial weights.
        checkpoints: folder with one sub-folder per arch, to resume from.
        progress: called with the completed steps of the current arch.
        device: device for training and scoring.
    """

    def __init__(
        self,
        space: SearchSpace,
        data: DataModule,
        recipe: FinetuneConfig,
        *,
        seed: int,
        checkpoints: Path,
        progress: Progress = silent,
        device: torch.device = CPU,
    ) -> None:
        self._space, self._data, self._seed = space, data, seed
        self._recipe = recipe.model_copy(update={"average": False})  # with random weights
        self._checkpoints, self._progress, self._device = checkpoints, progress, device

    def evaluate(self, arch: Arch) -> Evaluation:
        """Trains the arch from its last checkpoint, or from initial weights, and scores it."""
        px = resolution(self._space, arch)
        fresh = build_subnet(self._space, arch, seed=self._seed)
        place(fresh, self._device)
        network = finetune(
            fresh,
            self._data,
            self._recipe,
            px=px,
            teacher=None,
            seed=self._seed,
            checkpoints=self._checkpoints / arch.key,
            progress=self._progress,
        )
        images = self._data.eval_batches("val", EVAL_BATCH)
        score = evaluate(network, ((resize(x, px), y) for x, y in images))
        return Evaluation(
            arch=arch,
            top1=score.top1,
            val_loss=score.cross_entropy,
            source="trained",
            split="val",
            n_images=score.n_images,
            seed=self._seed,
            n_train_images_seen=images_seen(self._data, self._recipe),
        )


def images_seen(data: DataModule, recipe: FinetuneConfig) -> int:
    """Number of training images that one network sees, in full batches."""
    n_train = data.info.n_images["train"]
    return recipe.epochs * (n_train - n_train % recipe.batch_size)


def training_seconds(
    space: SearchSpace,
    data: DataModule,
    recipe: FinetuneConfig,
    archs: list[Arch],
    device: torch.device = CPU,
) -> float:
    """Estimates the seconds to train archs one after the other on this machine, in fp32.

    A few steps of the cheapest and the most expensive arch (by MACs) are timed; other archs are
    interpolated by MACs.
    """
    macs = cost(space, space.codes(archs), "macs").astype(np.float64)
    ends = int(macs.argmin()), int(macs.argmax())
    x, y = next(placed(data.train_batches(0, recipe.batch_size), device))
    low, high = (_step_seconds(space, archs[i], x, y) for i in ends)
    steps = np.interp(macs, [macs[ends[0]], macs[ends[1]]], [low, max(low, high)])
    return float(steps.sum()) * images_seen(data, recipe) / recipe.batch_size


def _step_seconds(space: SearchSpace, arch: Arch, x: torch.Tensor, y: torch.Tensor) -> float:
    """Median time of a forward and a backward pass."""
    network, seen = build_subnet(space, arch).train(), resize(x, resolution(space, arch))
    place(network, x.device)
    times = []
    for _ in range(N_WARM_UP + N_TIMED):
        wait_for(x.device)
        begin = time.perf_counter()
        logits = by_position(network(seen))
        torch.nn.functional.cross_entropy(logits, y.flatten()).backward()  # type: ignore[no-untyped-call]
        wait_for(x.device)
        times.append(time.perf_counter() - begin)
    return float(np.median(times[N_WARM_UP:]))
