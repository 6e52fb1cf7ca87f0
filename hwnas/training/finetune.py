"""Fine-tuning of one subnet with distillation from the largest subnet."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from hwnas.core.config import settled
from hwnas.core.progress import Progress, silent
from hwnas.core.records import dump
from hwnas.interfaces import DataModule, EightBits
from hwnas.nets.bn import recalibrate_in_place
from hwnas.training.averaging import best_average
from hwnas.training.checkpoint import Checkpoints
from hwnas.training.data import batches_from, placed
from hwnas.training.features import with_features
from hwnas.training.images import resize
from hwnas.training.losses import by_position, feature_distance, soft_cross_entropy
from hwnas.training.optim import Stepper
from hwnas.training.precision import Precision
from hwnas.training.qat import Forward, rounded_forward
from hwnas.training.regularise import Regularisation
from hwnas.training.sections import FinetuneConfig

__all__ = ["TeacherSubnet", "finetune"]


@dataclass(frozen=True)
class TeacherSubnet:
    """A teacher in eval mode that sees images at `px`, on the device of the student."""

    model: torch.nn.Module
    px: int


def finetune(
    model: torch.nn.Module,
    data: DataModule,
    config: FinetuneConfig,
    *,
    px: int,
    teacher: TeacherSubnet | None,
    seed: int,
    rounding: EightBits | None = None,
    checkpoints: Path | None = None,
    progress: Progress = silent,
) -> torch.nn.Module:
    """A trained copy of `model` in eval mode, with BN recalibrated on training images.

    The loss is (1 - w) * cross-entropy with smoothed labels + w * soft cross-entropy to the logits
    of the teacher, w = `config.distillation` (0 without a teacher), + `config.feature_distillation`
    * the `feature_distance` to the teacher + the loss of `Regularisation`. With `config.average`,
    the result is the `best_average` of the weights before and after the training.

    Args:
        model: an extracted subnet; it is not changed. Training runs on its device.
        data, config, px: source of the training images, recipe, and resolution of the model.
        teacher: usually the largest subnet, recalibrated.
        seed: recorded; the data set determines the order of images.
        rounding: how the 8-bit file rounds, if `config.precision` is int8; see `training.qat`.
        checkpoints: folder from which training resumes, one per pair of `model` and `teacher`.
        progress: called with the completed steps.

    Raises:
        UserError: a loss is not finite, settings differ from the checkpoint, or too few images.
    """
    student = copy.deepcopy(model).train()
    precision = _precision(config, device := next(student.parameters()).device)
    steps_per_epoch = max(1, data.info.n_images["train"] // config.batch_size)
    n_steps = config.epochs * steps_per_epoch
    added = Regularisation(student, config, seed=seed, n_steps=n_steps)
    stepper = Stepper(student, config.optimizer, n_steps=max(1, n_steps), scaler=precision.scaler)
    identity = _identity(data, config, px, teacher, seed, rounding)
    store = None if checkpoints is None else Checkpoints(checkpoints, identity)
    start, scale = (store and store.restore(student, stepper.optimizer)) or (0, None)
    precision.load_state(scale)
    seen = [resize(images.to(device), px) for images in _calibration(data, config)]
    forward = _forward(student, config, rounding, seen, steps_per_epoch, n_steps)
    progress(start, n_steps)
    batches = islice(batches_from(data, config.batch_size, start), n_steps - start)
    for step, (x, y) in enumerate(placed(batches, device), start):
        stepper.start(step)
        added.start(step)
        with precision.autocast():
            features, logits = forward(step, resize(x, px))
        loss = _loss(features.float(), logits.float(), x, y, teacher, config) + added.loss(y)
        precision.backward(loss)
        stepper.finish([loss.item()], step=step, nets=["the fine-tuned subnet"])
        if store is not None and (step + 1) % steps_per_epoch == 0:
            store.save(step + 1, student, stepper.optimizer, precision.state())
        progress(step + 1, n_steps, f"loss {loss.item():.3f} nats")
    added.remove()
    if config.is_averaged:
        return best_average(model, student, seen, data, px=px)
    return recalibrate_in_place(student, seen)


def _precision(config: FinetuneConfig, device: torch.device) -> Precision:
    """Training in 8 bits computes in fp32."""
    format = "fp32" if config.precision == "int8" else config.precision
    return Precision.of(format, device, setting="the recipe's precision")


def _calibration(data: DataModule, config: FinetuneConfig) -> list[torch.Tensor]:
    settings = config.calibration
    return list(data.calibration_batches(settings.n_batches, settings.batch_size))


def _forward(
    student: torch.nn.Module,
    config: FinetuneConfig,
    rounding: EightBits | None,
    calibration: list[torch.Tensor],
    steps_per_epoch: int,
    n_steps: int,
) -> Forward:
    """The forward pass of the network itself, or in 8 bits."""
    if config.precision != "int8" or not n_steps:
        return lambda _, images: with_features(student, images)
    if rounding is None:
        raise ValueError("precision int8 needs `rounding`")
    return rounded_forward(
        student, calibration, rounding, steps_per_epoch=steps_per_epoch, n_steps=n_steps
    )


def _loss(
    features: torch.Tensor,
    logits: torch.Tensor,
    x: torch.Tensor,
    y: torch.Tensor,
    teacher: TeacherSubnet | None,
    config: FinetuneConfig,
) -> torch.Tensor:
    logits, y = by_position(logits), y.flatten()
    labels = torch.nn.functional.cross_entropy(logits, y, label_smoothing=config.label_smoothing)
    share, weight = config.distillation, config.feature_distillation
    if teacher is None or not config.has_teacher:
        return labels
    with torch.no_grad():
        shown, taught = with_features(teacher.model, resize(x, teacher.px))
    soft = soft_cross_entropy(logits, by_position(taught), config.temperature)
    loss = (1 - share) * labels + share * soft
    return loss + weight * feature_distance(features, shown) if weight else loss


def _identity(
    data: DataModule,
    config: FinetuneConfig,
    px: int,
    teacher: TeacherSubnet | None,
    seed: int,
    rounding: EightBits | None,
) -> dict[str, Any]:
    return ({"rounding": rounding} if config.precision == "int8" else {}) | {
        "config": settled(config),
        "seed": seed,
        "px": px,
        "teacher_px": None if teacher is None else teacher.px,
        "data": dump(data.info, versioned=False),
    }
