"""Runs leading operators that several archs have in common only once for all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hwnas.nets.sharing import Node
from hwnas.spaces.network import IMAGE, Step

__all__ = ["Program", "SharedStart", "last_reads", "n_common"]

Program = Sequence[tuple[Step, Node | None]]


@dataclass(frozen=True)
class SharedStart:
    """Outputs of the first `n_steps` steps on one batch, which several archs have in common.

    `Supernet.start` makes it. Each arch continues from `values`, and its backward pass adds
    gradients to them. Then `backward` runs the backward pass of the common steps once. The weights
    get the same gradients as from separate passes, because operators, weights and images are equal,
    and therefore also the BN statistics.

    values: maps numbers of values to detached tensors.
    computed: the same tensors, attached to the autograd graph.
    """

    n_steps: int
    values: Mapping[int, Tensor]
    computed: Mapping[int, Tensor]

    @classmethod
    def of(cls, n_steps: int, computed: Mapping[int, Tensor]) -> SharedStart:
        """Makes a start from the outputs of the common steps, attached to the autograd graph."""
        values = {
            number: value.detach().requires_grad_(value.requires_grad)
            for number, value in computed.items()
        }
        return cls(n_steps, values, computed)

    @property
    def images(self) -> Tensor:
        """The images on which the common steps ran."""
        return self.values[IMAGE]

    def backward(self) -> None:
        """Adds the gradients of the weights of the common steps to their `.grad`.

        Call it after the backward passes of all archs.
        """
        read = [number for number, value in self.values.items() if value.grad is not None]
        computed, gradients = (
            [self.computed[number] for number in read],
            [self.values[number].grad for number in read],
        )
        torch.autograd.backward(computed, gradients)


def n_common(programs: Sequence[Program]) -> int:
    """Counts the leading steps that are equal in all programs: operators, inputs and weights.

    The last step of a program never counts. It is the classifier, which dropout can precede.
    """
    shortest = min(map(len, programs)) - 1
    first, *others = programs
    differ = (n for n in range(shortest) if any(other[n] != first[n] for other in others))
    return next(differ, shortest)


def last_reads(programs: Sequence[Program]) -> dict[int, int]:
    """Maps the number of each value to the index of the last step that reads it, in any program.

    The image is left out.
    """
    found: dict[int, int] = {}
    for program in programs:
        for t, (step, _) in enumerate(program):
            for value in step.reads:
                found[value] = max(t, found.get(value, t))
    found.pop(IMAGE, None)
    return found
