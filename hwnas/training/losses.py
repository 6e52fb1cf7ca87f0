"""Losses of logits [B, n_classes], averaged over the batch, in nats."""

from __future__ import annotations

import torch

__all__ = ["soft_cross_entropy"]


def soft_cross_entropy(
    student: torch.Tensor, teacher: torch.Tensor, temperature: float = 1.0
) -> torch.Tensor:
    """Cross-entropy of the student to the teacher's softened softmax; no gradient to the teacher.

    Times temperature**2, which keeps the gradient's size (Hinton et al. 1503.02531, section 2.1).
    """
    target = (teacher.detach() / temperature).softmax(dim=1)
    loss = torch.nn.functional.cross_entropy(student / temperature, target)
    return loss * temperature**2
