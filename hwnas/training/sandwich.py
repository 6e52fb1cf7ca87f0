"""One sandwich step: gradients of several subnets, the largest teaching the others in place."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from hwnas.nets.supernet import Supernet
from hwnas.spaces.arch import Arch
from hwnas.spaces.lowering import resolution
from hwnas.training.images import resize
from hwnas.training.losses import soft_cross_entropy

__all__ = ["sandwich_step"]


def sandwich_step(
    supernet: Supernet,
    x: torch.Tensor,
    y: torch.Tensor,
    archs: Sequence[Arch],
    *,
    rng: torch.Generator | None = None,
    label_smoothing: float = 0.0,
    dropout: float = 0.0,
    drop_path: float = 0.0,
    temperature: float = 1.0,
) -> list[float]:
    """Add the gradient of the summed losses of `archs` to the parameters' `.grad`.

    The first arch learns the labels, alone regularised; the others learn its detached logits
    (BigNAS 2003.11142, section 3.1; AttentiveNAS 2011.09011). One forward and one backward per
    arch, so memory holds one graph at a time. The optimiser is the caller's.

    Args:
        supernet: in train mode.
        x: normalised images [B, C, base_px, base_px]; each arch sees them at its own resolution.
        y: labels [B].
        archs: the teacher first.
        rng: stream of dropout and drop-path.
        label_smoothing: of the first arch's targets.
        dropout: of the first arch.
        drop_path: of the first arch.
        temperature: of the distillation.

    Returns:
        The loss of every arch, in order, in nats; may be NaN or infinite, which is for the caller
        to check before it steps.
    """
    losses = []
    teacher: torch.Tensor | None = None
    for arch in archs:
        seen = resize(x, resolution(supernet.space, arch))
        if teacher is None:
            logits = supernet(seen, arch, rng, dropout=dropout, drop_path=drop_path)
            loss = torch.nn.functional.cross_entropy(logits, y, label_smoothing=label_smoothing)
            teacher = logits.detach()
        else:
            loss = soft_cross_entropy(supernet(seen, arch), teacher, temperature)
        loss.backward()  # type: ignore[no-untyped-call]
        losses.append(loss.detach())
    values: list[float] = torch.stack(losses).tolist()
    return values
