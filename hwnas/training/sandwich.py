"""One sandwich step: gradients of several subnets, with the largest as teacher."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from hwnas.nets.shared_start import SharedStart
from hwnas.nets.supernet import Supernet
from hwnas.spaces.arch import Arch
from hwnas.spaces.lowering import resolution
from hwnas.training.images import resize
from hwnas.training.losses import Distill, by_position, soft_cross_entropy
from hwnas.training.precision import FULL, Precision

__all__ = ["SandwichSettings", "Starts", "label_loss", "sandwich_step", "subnet_logits"]


@dataclass(frozen=True)
class SandwichSettings:
    """Settings that are constant during a training.

    Label smoothing, dropout and drop path apply to the largest arch of the space only. In spaces of
    recurrent cells, whose archs all have the same size, they apply to every arch.

    in_place: whether the first arch is the teacher of the others, with the loss `distill`.
    teacher_weight: weight w in [0, 1] of an external teacher. Archs that learn from labels have the
        loss (1 - w) * loss to the labels + w * loss to its logits.
    precision: precision of forward and backward passes.
    """

    label_smoothing: float = 0.0
    dropout: float = 0.0
    drop_path: float = 0.0
    in_place: bool = True
    distill: Distill = soft_cross_entropy
    teacher_weight: float = 0.0
    precision: Precision = FULL

    def noise(self, rng: torch.Generator | None) -> dict[str, Any]:
        """The arguments of `Supernet.forward` for dropout and drop path."""
        return {"rng": rng, "dropout": self.dropout, "drop_path": self.drop_path}


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
    first operators that archs have in common run once (`Starts`), except with drop path, which
    makes them differ. The caller runs the optimiser.

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
    losses, taught = [], None  # logits of the first arch
    precision, distill, share = settings.precision, settings.distill, settings.teacher_weight
    starts = Starts(supernet, x, () if settings.drop_path else archs, precision)
    for arch in archs:
        start = starts.of(arch)
        if taught is not None:
            logits = subnet_logits(supernet, x, arch, precision=precision, start=start)
            loss = distill(logits, taught)
        else:
            is_largest = arch == supernet.space.largest()
            strength = float(is_largest or supernet.space.macro.reads_tokens)
            noise = settings.noise(rng) if strength else {}
            logits = subnet_logits(supernet, x, arch, precision=precision, start=start, **noise)
            loss = _from_labels(logits, y, strength * settings.label_smoothing)
            if teacher is not None:
                loss = (1 - share) * loss + share * distill(logits, teacher)
            if settings.in_place:
                taught = logits.detach()
        precision.backward(loss if weight == 1 else loss * weight)
        starts.after(arch)
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
    start: SharedStart | None = None,
) -> torch.Tensor:
    """Logits [B, classes], fp32, of one arch on images [B, C, base_px, base_px].

    For texts, [B * L, classes]: one row per predicted token. `start`: see `Supernet.forward`.
    """
    seen = resize(x, resolution(supernet.space, arch)) if start is None else start.images
    with precision.autocast():
        logits: torch.Tensor = supernet(
            seen, arch, rng, dropout=dropout, drop_path=drop_path, start=start
        )
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
    return _from_labels(subnet_logits(supernet, x, arch, precision=precision), y)


def _from_labels(logits: torch.Tensor, y: torch.Tensor, smoothing: float = 0.0) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(logits, y.flatten(), label_smoothing=smoothing)


class Starts:
    """Avoids running the same leading operators for several archs of a step (`SharedStart`).

    Archs of one resolution with the same first operator form a group. A group shares all leading
    operators that are equal in all its archs. Call `of` before the passes of an arch, and `after`
    when they are finished.
    """

    def __init__(
        self, supernet: Supernet, x: torch.Tensor, archs: Sequence[Arch], precision: Precision
    ) -> None:
        self._supernet, self._x, self._precision = supernet, x, precision
        self._alike: dict[Hashable, list[Arch]] = defaultdict(list)
        for arch in archs:
            self._alike[self._beginning(arch)].append(arch)
        self._starts: dict[Hashable, SharedStart | None] = {}

    def of(self, arch: Arch) -> SharedStart | None:
        """Outputs of the operators that `arch` shares with its group; None if it shares none."""
        key = self._beginning(arch)
        archs = self._alike[key]
        if key not in self._starts:
            self._starts[key] = self._run(archs) if len(archs) > 1 else None
        return self._starts[key]

    def after(self, arch: Arch) -> None:
        """Runs the backward pass of the shared operators if `arch` is the last one of its group."""
        key = self._beginning(arch)
        if (start := self._starts[key]) is not None:
            self._alike[key].remove(arch)
            if not self._alike[key]:
                start.backward()

    def _beginning(self, arch: Arch) -> Hashable:
        return resolution(self._supernet.space, arch), self._supernet.plan(arch)[0]

    def _run(self, archs: Sequence[Arch]) -> SharedStart | None:
        seen = resize(self._x, resolution(self._supernet.space, archs[0]))
        with self._precision.autocast():
            return self._supernet.start(seen, archs)
