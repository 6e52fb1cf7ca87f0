"""Losses of logits [B, n_classes] in nats, and of features, averaged over the batch.

A student learns from a teacher by one of three divergences. None of them sends a gradient to the
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
    "by_position",
    "distillation",
    "feature_distance",
    "kl_divergence",
    "ranking_loss",
    "soft_cross_entropy",
]

Distillation = Literal["soft_cross_entropy", "kl", "alpha"]
Distill = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(logits of the student, logits of the teacher) -> loss."""


def by_position(logits: torch.Tensor) -> torch.Tensor:
    """Converts logits of texts [B, n_classes, L] to [B * L, n_classes]; keeps those of images."""
    return logits.movedim(1, -1).flatten(0, -2) if logits.ndim > 2 else logits


def distillation(kind: Distillation, *, temperature: float = 1.0, clip: float = 5.0) -> Distill:
    """The loss with this name; `clip` limits the importance weights of `alpha`."""
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
    """Cross-entropy of the student with the softened softmax of the teacher.

    The loss is multiplied by temperature**2, which keeps the scale of the gradients (Hinton et al.
    1503.02531, section 2.1).
    """
    target = (teacher.detach() / temperature).softmax(dim=1)
    loss = torch.nn.functional.cross_entropy(student / temperature, target)
    return loss * temperature**2


def kl_divergence(
    student: torch.Tensor, teacher: torch.Tensor, temperature: float = 1.0
) -> torch.Tensor:
    """KL(teacher || student): `soft_cross_entropy` minus the teacher's entropy; same gradient."""
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

    alpha = -1 penalises a student that is confident where the teacher is not; alpha = 1 (KL)
    penalises the reverse.
    """
    low, high = (alpha_divergence(student, teacher, alpha, clip=clip) for alpha in alphas)
    return torch.where(low.detach() > high.detach(), low, high).mean()


def alpha_divergence(
    student: torch.Tensor, teacher: torch.Tensor, alpha: float, *, clip: float = math.inf
) -> torch.Tensor:
    """D_alpha(p || q) of teacher p and student q, per image: [B].

    D = sum_c q (t^alpha - 1) / (alpha (alpha - 1)) with t = p / q (2102.07954, equation 3). Its
    limit at alpha = 1 is sum_c q t log t, the KL divergence. The importance weight t^alpha is
    clipped at `clip`, in the value and in the gradient -sum_c q t^alpha / alpha * grad log q
    (section 3.2). Powers are computed from logarithms, so the gradient is finite for any p and q.

    Args:
        student: logits.
        teacher: logits; gets no gradient.
        alpha: not 0.
        clip: maximum importance weight.
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


def feature_distance(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Mean squared distance to the teacher's features, divided by the variance of the latter.

    student: features [B, F].
    teacher: features [B, >= F].

    Features that always equal the mean of the teacher's features have distance 1. A student with
    fewer features learns the first features of the teacher, which are the most important ones if
    channels are sorted (cf. 1412.6550, which maps them by a further layer, and 2011.01424). The
    teacher gets no gradient.
    """
    target = teacher.detach()[:, : student.shape[1]]
    return (student - target).square().mean() / target.var().clamp(min=1e-6)


def ranking_loss(better: torch.Tensor, worse: torch.Tensor) -> torch.Tensor:
    """max(0, better - worse), for the losses of two networks: `better` should be the lower one.

    This is the pairwise ranking loss of PGONAS (2206.13329). Detach `worse` so that only the better
    network learns, because a gradient to the worse network increases its loss.
    """
    return torch.relu(better - worse)
