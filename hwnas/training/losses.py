"""Losses of logits [B, n_classes], averaged over the batch, in nats.

What a student learns from a teacher is one of three divergences; none sends a gradient to the
teacher.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch

__all__ = [
    "Distill",
    "Distillation",
    "adaptive_alpha_divergence",
    "alpha_divergence",
    "distillation",
    "kl_divergence",
    "ranking_loss",
    "soft_cross_entropy",
]

Distillation = Literal["soft_cross_entropy", "kl", "alpha"]
Distill = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(student's logits, teacher's logits) -> loss."""


def distillation(kind: Distillation, *, temperature: float = 1.0, clip: float = 5.0) -> Distill:
    """The loss of that name; `clip` is of the importance weights of `alpha`."""
    if kind == "alpha":
        return lambda student, teacher: (
            adaptive_alpha_divergence(student / temperature, teacher / temperature, clip=clip)
            * temperature**2
        )
    loss = soft_cross_entropy if kind == "soft_cross_entropy" else kl_divergence
    return lambda student, teacher: loss(student, teacher, temperature)


def soft_cross_entropy(
    student: torch.Tensor, teacher: torch.Tensor, temperature: float = 1.0
) -> torch.Tensor:
    """Cross-entropy of the student with the teacher's softened softmax; no gradient to the teacher.

    The loss is multiplied by temperature**2, which keeps the scale of the gradients (Hinton et al.
    1503.02531, section 2.1).
    """
    target = (teacher.detach() / temperature).softmax(dim=1)
    loss = torch.nn.functional.cross_entropy(student / temperature, target)
    return loss * temperature**2


def kl_divergence(
    student: torch.Tensor, teacher: torch.Tensor, temperature: float = 1.0
) -> torch.Tensor:
    """KL(teacher || student): `soft_cross_entropy` without the teacher's entropy; same gradient."""
    target = (teacher.detach() / temperature).log_softmax(dim=1)
    loss = torch.nn.functional.kl_div(
        (student / temperature).log_softmax(dim=1), target, reduction="batchmean", log_target=True
    )
    return loss * temperature**2


def adaptive_alpha_divergence(
    student: torch.Tensor,
    teacher: torch.Tensor,
    *,
    alphas: tuple[float, float] = (-1.0, 1.0),
    clip: float = 5.0,
) -> torch.Tensor:
    """Per image the larger of two clipped alpha-divergences (AlphaNet 2102.07954, section 3.3).

    alpha = -1 punishes the student for being sure where the teacher is not, alpha = 1 (KL) for the
    reverse.
    """
    low, high = (alpha_divergence(student, teacher, alpha, clip=clip) for alpha in alphas)
    return torch.where(low.detach() > high.detach(), low, high).mean()


def alpha_divergence(
    student: torch.Tensor, teacher: torch.Tensor, alpha: float, *, clip: float = math.inf
) -> torch.Tensor:
    """D_alpha(p || q) of teacher p and student q, per image: [B].

    D = sum_c q (t^alpha - 1) / (alpha (alpha - 1)) with t = p / q (2102.07954, equation 3); its
    limit sum_c q t log t, the KL divergence, at alpha = 1. The importance weight t^alpha is clipped
    at `clip`, in the value and in the gradient -sum_c q t^alpha / alpha * grad log q (same, section
    3.2), which is finite however far apart p and q are: all powers are taken of logarithms.

    Args:
        student: logits.
        teacher: logits; gets no gradient.
        alpha: not 0.
        clip: largest importance weight.
    """
    log_q = student.log_softmax(dim=1)
    with torch.no_grad():
        log_t = teacher.log_softmax(dim=1) - log_q
        q = log_q.exp()
        weight = (alpha * log_t).clamp(max=math.log(clip)).exp()
        if alpha == 1:
            value = (q * weight * log_t).sum(dim=1)
        else:
            value = ((q * weight).sum(dim=1) - 1) / (alpha * (alpha - 1))
        towards = -q * weight / alpha
    slope = (towards * log_q).sum(dim=1)
    return value + (slope - slope.detach())


def ranking_loss(better: torch.Tensor, worse: torch.Tensor) -> torch.Tensor:
    """max(0, better - worse), of the losses of two networks of which the first should be lower.

    PGONAS (2206.13329), pairwise ranking loss. Detach `worse` so that only the better network
    learns: a gradient to the worse one raises its loss.
    """
    return torch.relu(better - worse)
