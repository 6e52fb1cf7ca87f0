"""Trains a new classifier on a pretrained body first, from features computed once."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import islice

import torch

from hwnas.core.progress import Progress, silent
from hwnas.core.rng import rng
from hwnas.interfaces import DataModule
from hwnas.nets.extract import subnet_tensors
from hwnas.nets.supernet import Supernet
from hwnas.spaces.lowering import resolution
from hwnas.training.data import Batch, placed
from hwnas.training.evaluate import EVAL_BATCH
from hwnas.training.features import classifier_of, with_features
from hwnas.training.images import resize
from hwnas.training.optim import Stepper
from hwnas.training.sections import TrainConfig

__all__ = ["fit_head"]

MAX_IMAGES = 20_000  # images whose features are stored; 1,280 features take 100 MB


def fit_head(
    supernet: Supernet,
    data: DataModule,
    config: TrainConfig,
    *,
    seed: int,
    progress: Progress = silent,
) -> None:
    """Trains only the classifier of `supernet`, in place, for `config.head_epochs`.

    Its inputs are the features of the largest arch, with recalibrated BN, for the first
    `MAX_IMAGES` training images, not augmented. The optimiser is `config.optimizer`. The result
    only depends on weights, data and seed. A killed training repeats it, which takes seconds.

    Raises:
        UserError: a loss is not finite, or there are too few images.
    """
    space, calibration = supernet.space, config.calibration
    largest = space.largest()
    px, device = resolution(space, largest), next(supernet.parameters()).device
    images = data.calibration_batches(calibration.n_batches, calibration.batch_size)
    network = supernet.extract(largest, recalibrate_on=images)
    few = islice(data.eval_batches("train", EVAL_BATCH), -(-MAX_IMAGES // EVAL_BATCH))
    seen = ((resize(x, px), y) for x, y in placed(few, device))
    features, labels = _features(network, seen)
    classifier = copy.deepcopy(classifier_of(network))
    size = min(config.batch_size, len(labels))
    n_steps = config.head_epochs * (len(labels) // size)
    stepper = Stepper(classifier, config.optimizer, n_steps=n_steps)
    for step, rows in enumerate(_rows(len(labels), size, config.head_epochs, seed)):
        stepper.start(step)
        loss = torch.nn.functional.cross_entropy(
            classifier(features[rows]), labels[rows], label_smoothing=config.label_smoothing
        )
        loss.backward()  # type: ignore[no-untyped-call]
        stepper.finish([loss.item()], step=step, nets=["the new classifier"])
        progress(step + 1, n_steps, f"training the new classifier, loss {loss.item():.3f} nats")
    learned = classifier.state_dict()
    with torch.no_grad():
        for name, tensor in subnet_tensors(supernet, largest, modulated=False):
            module, _, kind = name.rpartition(".")
            if module == "classifier":
                tensor.copy_(learned[kind])


@torch.no_grad()
def _features(network: torch.nn.Module, batches: Iterator[Batch]) -> Batch:
    """Inputs of the classifier of a network in eval mode, [N, features], and the labels [N]."""
    features, labels = zip(*((with_features(network, x)[0], y) for x, y in batches), strict=True)
    return torch.cat(features), torch.cat(labels)


def _rows(n: int, size: int, epochs: int, seed: int) -> Iterator[torch.Tensor]:
    """Rows of every batch. A partial last batch of an epoch is dropped."""
    for epoch in range(epochs):
        order = torch.from_numpy(rng(seed, "train/head", epoch).permutation(n))
        yield from order[: n - n % size].reshape(-1, size)
