"""One sandwich step: gradients of several subnets, with the largest as teacher."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from hwnas.nets.supernet import Supernet
from hwnas.spaces.arch import Arch
from hwnas.spaces.lowering import resolution
from hwnas.training.images import resize
from hwnas.training.losses import Distill, by_position, soft_cross_entropy
from hwnas.training.precision import FULL, Precision

__all__ = ["SandwichSettings", "label_loss", "sandwich_step", "subnet_logits"]


@dataclass(frozen=True)
class SandwichSettings:
    """Settings that are constant during a training.

    Label smoothing, dropout and drop-path only apply to the largest arch of the space; in spaces of
    recurrent cells, whose archs have equal sizes, to all of them.

    in_place: whether the first arch is the teacher of the others, with the loss `distill`.
    teacher_weight: in [0, 1]; with an external teacher, archs that learn from labels learn (1 -
        teacher_weight) * labels + teacher_weight * its logits.
    precision: precision of forward and backward passes.
    """

    label_smoothing: float = 0.0
    dropout: float = 0.0
    drop_path: float = 0.0
    in_place: bool = True
    distill: Distill = soft_cross_entropy
    teacher_weight: float = 0.0
    precision: Precision = FULL


def sandwich_step(
    supernet: Supernet,
    x: torch.Tensor,
    y: torch.Tensor,
    archs: Sequence[Arch],
    settings: SandwichSettings = SandwichSettings(),
    *,
    rng: torch.Generator | None = None,
    teacher: torch.Tensor | None = None,
    weight: float = 1.0,
) -> list[float]:
    """Adds the gradient of the summed losses of `archs` to `.grad` of the parameters.

    With `in_place` the first arch learns from the labels, and the others from its detached logits
    (BigNAS 2003.11142, section 3.1; AttentiveNAS 2011.09011). Otherwise all learn from the labels.
    Each arch takes one forward and one backward pass, so memory holds one graph at a time. The
    caller runs the optimiser.

    Args:
        supernet: in train mode.
        x: normalised images [B, C, base_px, base_px]; each arch sees them at its own resolution.
        y: labels [B].
        archs: with `in_place` the teacher comes first.
        settings: see `SandwichSettings`.
        rng: stream of dropout and drop-path.
        teacher: logits [B, classes] of an external teacher.
        weight: weight of this batch in the gradient, if a step has several batches.

    Returns:
        The loss of every arch, in order, in nats; the caller checks that they are finite.
    """
    losses = []
    largest = supernet.space.largest()
    precision, distill, share = settings.precision, settings.distill, settings.teacher_weight
    taught: torch.Tensor | None = None  # logits of the first arch
    for arch in archs:
        if taught is not None:
            loss = distill(subnet_logits(supernet, x, arch, precision=precision), taught)
        else:
            strength = float(arch == largest or supernet.space.macro.reads_tokens)
            logits = subnet_logits(
                supernet,
                x,
                arch,
                precision=precision,
                rng=rng if strength else None,
                dropout=strength * settings.dropout,
                drop_path=strength * settings.drop_path,
            )
            loss = torch.nn.functional.cross_entropy(
                logits, y.flatten(), label_smoothing=strength * settings.label_smoothing
            )
            if teacher is not None:
                loss = (1 - share) * loss + share * distill(logits, teacher)
            if settings.in_place:
                taught = logits.detach()
        precision.backward(loss if weight == 1 else loss * weight)
        losses.append(loss.detach())
    values: list[float] = torch.stack(losses).tolist()
    return values


def subnet_logits(
    supernet: Supernet,
    x: torch.Tensor,
    arch: Arch,
    *,
    precision: Precision = FULL,
    rng: torch.Generator | None = None,
    dropout: float = 0.0,
    drop_path: float = 0.0,
) -> torch.Tensor:
    """Logits [B, classes], fp32, of one arch on images [B, C, base_px, base_px].

    Of texts, [B * L, classes]: one row per predicted token.
    """
    seen = resize(x, resolution(supernet.space, arch))
    with precision.autocast():
        logits: torch.Tensor = supernet(seen, arch, rng, dropout=dropout, drop_path=drop_path)
    return by_position(logits.float())


def label_loss(
    supernet: Supernet,
    x: torch.Tensor,
    y: torch.Tensor,
    arch: Arch,
    *,
    precision: Precision = FULL,
) -> torch.Tensor:
    """Cross-entropy of one arch to the labels, with BN statistics of the batch."""
    return torch.nn.functional.cross_entropy(
        subnet_logits(supernet, x, arch, precision=precision), y.flatten()
    )
