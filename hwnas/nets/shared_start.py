"""The first operators that several archs have in common, run once for all of them."""

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
    """What the first `n_steps` steps of several archs compute for one batch (`Supernet.start`).

    Each arch continues from `values`, which collect the gradients of all archs. `backward` then
    runs the backward pass of the common steps once. The result equals the sum of the gradients of
    separate archs, because operators, weights and images are equal, and therefore the BN
    statistics.

    values: detached values, by their number.
    computed: the same values with the graph behind them.
    """

    n_steps: int
    values: Mapping[int, Tensor]
    computed: Mapping[int, Tensor]

    @classmethod
    def of(cls, n_steps: int, computed: Mapping[int, Tensor]) -> SharedStart:
        """A start whose archs have not run yet."""
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
        """Adds the gradients of the common weights, after the backward passes of all archs."""
        read = [number for number, value in self.values.items() if value.grad is not None]
        computed, gradients = (
            [self.computed[number] for number in read],
            [self.values[number].grad for number in read],
        )
        torch.autograd.backward(computed, gradients)


def n_common(programs: Sequence[Program]) -> int:
    """Number of first steps with equal operators, inputs and weights; never includes the last.

    The last step is the classifier, before which there can be dropout.
    """
    shortest = min(map(len, programs)) - 1
    first, *others = programs
    differ = (n for n in range(shortest) if any(other[n] != first[n] for other in others))
    return next(differ, shortest)


def last_reads(programs: Sequence[Program]) -> dict[int, int]:
    """By number of each value but the image: the last step, in any program, that reads it."""
    found: dict[int, int] = {}
    for program in programs:
        for t, (step, _) in enumerate(program):
            for value in step.reads:
                found[value] = max(t, found.get(value, t))
    found.pop(IMAGE, None)
    return found
