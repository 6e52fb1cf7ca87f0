"""Skeletons: the fixed part of a space, its choices, and its capabilities.

A new kind of network is one subclass, in a file of its own or in that of its space.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from hwnas.core.errors import UserError
from hwnas.spaces.choice import Choice
from hwnas.spaces.ops import OpSpec

__all__ = ["Ability", "Edges", "Skeleton", "SlotGraph", "chain"]

Ability = Literal["supernet", "static net"]
"""What not every skeleton has: shared weights, and trainable networks of single archs.

`hwnas.nets` has both for chains of convolutions, blocks, `pool` and `linear`.
"""

Edges = NDArray[np.bool_]
"""bool [n, p, p]: `edges[:, i, j]` where slot i reads the output of slot j."""


@dataclass(frozen=True)
class SlotGraph:
    """Which slots read which.

    slots: positions in `slot_names` of the p nodes. reads: per node the earlier nodes (numbered
    within `slots`) whose sum it reads; None in a chain, where every node reads the one before it.
    absent_passes: a slot without an operator passes its input on; else nothing is read from it.
    """

    slots: tuple[int, ...]
    reads: tuple[tuple[int, ...], ...] | None
    absent_passes: bool

    def edges(self, present: NDArray[np.bool_]) -> Edges:
        """bool [n, p, p] for archs whose slots are present as in bool [n, p]."""
        if self.reads is None:
            return chain(present)
        n, p = present.shape
        edges = np.zeros((n, p, p), dtype=bool)
        for reader, sources in enumerate(self.reads):
            for source in sources:
                edges[:, reader, source] = present[:, source]
                if self.absent_passes:
                    edges[:, reader] |= edges[:, source] & ~present[:, source, None]
        edges &= present[:, :, None]
        return edges


def chain(present: NDArray[np.bool_]) -> Edges:
    """Edges of chains: every present slot of `present` [n, p] reads the present slot before it."""
    n, p = present.shape
    position = np.where(present, np.arange(p), -1)
    last = np.maximum.accumulate(position, axis=1)  # latest present slot up to here
    edges = np.zeros((n, p, p), dtype=bool)
    reader = present[:, 1:] & (last[:, :-1] >= 0)
    row, slot = np.nonzero(reader)
    edges[row, slot + 1, last[row, slot]] = True
    return edges


class Skeleton(ABC):
    """Everything that `lower()` needs to know of a space besides the codes, as a frozen dataclass.

    Its fields are hashed into `SearchSpace.id` (those that differ from their defaults), so a field
    that is added later has a default and means by it what was meant before.

    in_channels: of the images. resolutions: in px, ascending; the values of the first choice.
    """

    in_channels: int
    num_classes: int
    resolutions: tuple[int, ...]

    bn_eps: float = 1e-5
    """What BN adds to variances; those of published weights are fixed."""

    absent_passes: ClassVar[bool] = True
    """Whether a slot without an operator hands on what it reads; else nothing is read from it."""

    act_first: ClassVar[bool] = False
    """Whether a `conv` is act-conv-BN and not conv-BN-act."""

    is_published: ClassVar[bool] = False
    """Whether the largest arch is a network as it was published: what one would use without search,
    on images as small as a limit demands."""

    lacks: ClassVar[Mapping[Ability, str]] = MappingProxyType(
        {
            "supernet": "networks of this skeleton have no shared weights yet",
            "static net": "networks of this skeleton cannot be trained yet",
        }
    )
    """What cannot be done with its archs yet, each with the reason in words."""

    @abstractmethod
    def choices(self) -> tuple[Choice, ...]:
        """The decisions in the order of the codes, the resolution first."""

    @abstractmethod
    def slot_names(self) -> tuple[str, ...]:
        """One name per slot, all different. The choice of a slot's operator is called `SLOT.op`."""

    @abstractmethod
    def lower_slots(self, codes: tuple[int, ...]) -> tuple[OpSpec | None, ...]:
        """One operator per slot in execution order; None if the arch has none there.

        The first slot reads the image, the last one writes the logits; both are always present.
        Codes of inactive choices may be anything. Equal operators are best one object
        (`hwnas.spaces.ops.conv` is cached): tables of a whole space call this thousands of times.
        """

    def reads(self) -> tuple[tuple[int, ...], ...] | None:
        """Per slot the earlier slots whose sum it reads; None: a chain of slots."""
        return None

    def predictor_graph(self) -> SlotGraph:
        """The slots and edges that predictors of accuracy see: all of them.

        A skeleton that repeats one cell shows the cell once.
        """
        return self.slot_graph

    @cached_property
    def slot_graph(self) -> SlotGraph:
        """The graph of all slots, with the edges of `reads`."""
        return SlotGraph(tuple(range(len(self.slot_names()))), self.reads(), self.absent_passes)

    @property
    def is_chain(self) -> bool:
        """Whether operators run one after the other, so that one of them has the peak memory."""
        return self.slot_graph.reads is None

    def require(self, ability: Ability, *, space: str) -> None:
        """Refuse what cannot be done with archs of this skeleton.

        Raises:
            UserError: says why it cannot be done.
        """
        if ability in self.lacks:
            raise UserError(
                f"space {space} has no {ability}",
                expected="a space whose skeleton has one, e.g. mobilenet_v3",
                found=self.lacks[ability],
                where="space",
            )
