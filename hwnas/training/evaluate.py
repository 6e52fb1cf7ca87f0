"""Accuracy of networks, and of subnets with the supernet's weights."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from hwnas.core.bits import pack_bits
from hwnas.core.errors import UserError
from hwnas.interfaces import DataModule, Evaluation, Split
from hwnas.nets.bn import recalibrate_in_place
from hwnas.nets.extract import extract
from hwnas.nets.supernet import Supernet
from hwnas.spaces.arch import Arch
from hwnas.spaces.lowering import resolution
from hwnas.training.data import Batch
from hwnas.training.images import resize
from hwnas.training.losses import by_position
from hwnas.training.sections import CalibrationConfig

__all__ = ["Score", "SupernetEvaluator", "evaluate", "first_images", "losses"]

EVAL_BATCH = 128  # a quarter faster than 512 on a CPU: activations stay in the cache (measured)


class Score(NamedTuple):
    """Accuracy in [0, 1], mean cross-entropy in nats, number of images, and correct ones.

    For texts, predicted tokens are counted instead of images.

    hits: text that encodes one bit per image: whether it was classified correctly (`core.bits`).
    """

    top1: float
    cross_entropy: float
    n_images: int
    hits: str


@torch.inference_mode()
def evaluate(model: torch.nn.Module, batches: Iterable[Batch]) -> Score:
    """Scores a model in eval mode, on its device, with batches at its resolution.

    Raises:
        UserError: there are no images.
    """
    hits: list[torch.Tensor] = []
    loss = 0.0
    parameter = next(model.parameters(), None)
    for x, y in batches:
        if parameter is not None:
            x, y = x.to(parameter.device), y.to(parameter.device)
        logits, y = by_position(model(x)), y.flatten()
        hits.append((logits.argmax(dim=1) == y).cpu())
        loss += float(torch.nn.functional.cross_entropy(logits, y, reduction="sum"))
    right = torch.cat(hits).numpy() if hits else np.zeros(0, dtype=np.bool_)
    if (n := len(right)) == 0:
        raise UserError("no images to evaluate on", expected="at least one image", found="none")
    return Score(int(right.sum()) / n, loss / n, n, pack_bits(right))


@torch.inference_mode()
def losses(model: torch.nn.Module, batches: Iterable[Batch]) -> NDArray[np.float64]:
    """Cross-entropy [n images] of a model in eval mode, in nats.

    batches: images, and labels [B] or probabilities of the classes [B, classes].
    """
    device, found = next(model.parameters()).device, []
    for x, y in batches:
        logits = by_position(model(x.to(device)))
        y = y.to(device) if y.is_floating_point() else y.to(device).flatten()
        found.append(torch.nn.functional.cross_entropy(logits, y, reduction="none").cpu())
    return torch.cat(found).double().numpy()


def first_images(data: DataModule, split: Split, n: int | None = None) -> list[Batch]:
    """The first n images of a split, in batches; all if n is None or larger."""
    if n is None:
        return list(data.eval_batches(split, EVAL_BATCH))
    found: list[Batch] = []
    for x, y in data.eval_batches(split, EVAL_BATCH):
        found.append((x[:n], y[:n]))
        n -= len(y)
        if n <= 0:
            break
    return found


class _Images(NamedTuple):
    """Images at one resolution: for BN, for the accuracy, and compared with the largest network."""

    calibration: list[torch.Tensor]
    scored: list[Batch]
    compared: list[Batch]


class SupernetEvaluator:
    """Scores archs with inherited weights: extract, recalibrate BN on training images, evaluate.

    Images are resized once per resolution and cached.

    Archs are compared by `losses`. With `agreement`, these are the losses of training images
    relative to the predictions of the largest network. Few validation images cannot rank subnets
    that are nearly equal; predictions of a network have less noise than labels
    (`benchmarks/agreement.py`).

    Args:
        supernet: its weights are read at every call, never changed.
        data: source of the images.
        calibration: training images for the BN statistics.
        seed: seed of the run, which evaluations record.
        split: the split to score on.
        n_images: maximum number of images, the first ones of the split; None for all.
        agreement: maximum number of training images, not augmented, that are compared with the
            predictions of the largest network; 0: labels of `split` are compared.
    """

    def __init__(
        self,
        supernet: Supernet,
        data: DataModule,
        calibration: CalibrationConfig,
        *,
        seed: int,
        split: Split = "val",
        n_images: int | None = None,
        agreement: int = 0,
    ) -> None:
        self._supernet, self._seed, self._split, self._data = supernet, seed, split, data
        self._n_compared = min(agreement, data.info.n_images["train"])
        self._calibration = data.calibration_batches(calibration.n_batches, calibration.batch_size)
        self._images = first_images(data, split, n_images)
        self._resized: dict[int, _Images] = {}

    @property
    def chance(self) -> float:
        """Rate (`Quality.rate`) of a network that has learned nothing.

        For images, it is the share of the most frequent class; for texts, 1 / number of words.
        """
        if self._supernet.space.macro.reads_tokens:
            return 1 / self._supernet.space.macro.num_classes
        labels = torch.cat([y for _, y in self._images])
        return float(torch.bincount(labels).max()) / len(labels)

    @property
    def n_images(self) -> int:
        """Number of scored images, or of predicted tokens."""
        return sum(y.numel() for _, y in self._images)

    def network(self, arch: Arch) -> torch.nn.Module:
        """The arch as an eval-mode module with inherited weights and recalibrated BN."""
        return recalibrate_in_place(extract(self._supernet, arch), self._at(arch).calibration)

    def losses(self, arch: Arch) -> NDArray[np.float64]:
        """Losses [n] in nats, one per image; archs are compared by their mean."""
        images = self._at(arch)
        return losses(self.network(arch), images.compared or images.scored)

    def evaluate(self, arch: Arch) -> Evaluation:
        """Accuracy and cross-entropy of the arch."""
        network, images = self.network(arch), self._at(arch)
        score = evaluate(network, images.scored)
        compared = images.compared
        agreement = float(losses(network, compared).mean()) if compared else None
        return Evaluation(
            arch=arch,
            top1=score.top1,
            val_loss=score.cross_entropy,
            source="supernet",
            split=self._split,
            n_images=score.n_images,
            seed=self._seed,
            hits=score.hits,
            agreement=agreement,
        )

    def _at(self, arch: Arch) -> _Images:
        px = resolution(self._supernet.space, arch)
        if px not in self._resized:
            self._resized[px] = _Images(
                [resize(x, px) for x in self._calibration],
                [(resize(x, px), y) for x, y in self._images],
                [(resize(x, px), y) for x, y in self._taught],
            )
        return self._resized[px]

    @cached_property
    @torch.inference_mode()
    def _taught(self) -> list[Batch]:
        """Training images, and the probabilities that the largest network gives to the classes."""
        if not self._n_compared:
            return []
        space, calibration = self._supernet.space, self._calibration
        (images,) = self._data.calibration_batches(1, self._n_compared)
        px, device = resolution(space, space.largest()), next(self._supernet.parameters()).device
        largest = self._supernet.extract(space.largest(), recalibrate_on=calibration)
        return [
            (x, by_position(largest(resize(x.to(device), px))).softmax(dim=1).cpu())
            for x in torch.split(images, EVAL_BATCH)
        ]
