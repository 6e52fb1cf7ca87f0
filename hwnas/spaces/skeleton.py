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
from hwnas.spaces.choice import Choice, Codes
from hwnas.spaces.ops import OpSpec

__all__ = ["Ability", "Edges", "Skeleton", "SlotGraph", "chain"]

Ability = Literal["supernet", "static net"]
"""Optional abilities: weights can be shared, and single archs can be trained.

`hwnas.nets` implements both for chains and graphs of all operators of `hwnas.spaces.ops`.
"""

Edges = NDArray[np.bool_]
"""bool [n, p, p]: `edges[:, i, j]` if slot i reads the output of slot j."""


@dataclass(frozen=True)
class SlotGraph:
    """The slots that are the p nodes of a graph, and the nodes that each node reads.

    slots: positions of the nodes in `slot_names`.
    reads: for each node, the earlier nodes (numbered within `slots`) whose sum it reads. None: a
        chain, in which every node reads the one before it.
    absent_passes: whether a slot without an operator passes its input on. If not, its readers read
        nothing from it.
    links: further edges (slot, reader, source) between nodes. The edge exists if the slot, a
        position in `slot_names`, has an operator. So slots that only select an input need not be
        nodes.
    """

    slots: tuple[int, ...]
    reads: tuple[tuple[int, ...], ...] | None
    absent_passes: bool
    links: tuple[tuple[int, int, int], ...] = ()

    def live(self, present: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which operators are on a path from the first to the last slot, bool [n, p].

        If there is no such path, the answer is true for all present operators.
        """
        if self.reads is None:
            return present
        edges = self.edges(present) if self.absent_passes else None
        n, p = present.shape
        fed, used = np.zeros((2, n, p), dtype=bool)
        fed[:, 0] = used[:, -1] = True
        sources = [list(read) for read in self.reads]
        for i in range(1, p):
            reads = fed[:, sources[i]] if edges is None else fed & edges[:, i]
            fed[:, i] = present[:, i] & reads.any(axis=1)
        for i in range(p - 1, 0, -1):
            reader = used[:, i] & present[:, i]
            if edges is None:
                used[:, sources[i]] |= reader[:, None]
            else:
                used |= reader[:, None] & edges[:, i]
        return present & ((used & fed) | ~fed[:, -1:])

    def edges(self, present: NDArray[np.bool_], linked: NDArray[np.bool_] | None = None) -> Edges:
        """Edges bool [n, p, p] of archs.

        present: bool [n, p], which nodes have an operator.
        linked: bool [n, len(links)], which links exist.
        """
        if self.reads is None:
            return chain(present)
        n, p = present.shape
        edges = np.zeros((n, p, p), dtype=bool)
        for reader, sources in enumerate(self.reads):
            edges[:, reader, list(sources)] = present[:, list(sources)]
            for source in sources if self.absent_passes else ():
                edges[:, reader] |= edges[:, source] & ~present[:, source, None]
        if linked is not None:
            for i, (_, reader, source) in enumerate(self.links):
                edges[:, reader, source] |= linked[:, i] & present[:, source]
        edges &= present[:, :, None]
        return edges


def chain(present: NDArray[np.bool_]) -> Edges:
    """Edges of chains: every present slot of `present` [n, p] reads the present slot before it."""
    n, p = present.shape
    position = np.where(present, np.arange(p), -1)
    last = np.maximum.accumulate(position, axis=1)  # last present slot up to here
    edges = np.zeros((n, p, p), dtype=bool)
    reader = present[:, 1:] & (last[:, :-1] >= 0)
    row, slot = np.nonzero(reader)
    edges[row, slot + 1, last[row, slot]] = True
    return edges


class Skeleton(ABC):
    """Everything that `lower()` needs to know about a space except the codes.

    A subclass is a frozen dataclass. Fields that differ from their defaults are hashed into
    `SearchSpace.id`. So a field that is added later needs a default that keeps the earlier
    behaviour.

    in_channels: channels of the images.
    resolutions: in px, ascending; the values of the first choice.
    """

    in_channels: int
    num_classes: int
    resolutions: tuple[int, ...]

    bn_eps: float = 1e-5
    """Epsilon that BN adds to variances; published weights fix its value."""

    absent_passes: ClassVar[bool] = True
    """Whether a slot without an operator passes its input on. If not, its readers read nothing from
    it.
    """

    act_first: ClassVar[bool] = False
    """Whether a `conv` is act-conv-BN instead of conv-BN-act."""

    reads_tokens: ClassVar[bool] = False
    """Whether a network reads a token and a state instead of an image, and returns the logits of
    the next token and the next state. Its `num_classes` are the words of a vocabulary.
    """

    is_published: ClassVar[bool] = False
    """Whether the largest arch is a published network. Then a baseline of the search is this
    network at the highest resolution that meets the limit.
    """

    lacks: ClassVar[Mapping[Ability, str]] = MappingProxyType(
        {
            "supernet": "networks of this skeleton have no shared weights yet",
            "static net": "networks of this skeleton cannot be trained yet",
        }
    )
    """Abilities that archs of this skeleton lack, each with the reason."""

    @abstractmethod
    def choices(self) -> tuple[Choice, ...]:
        """The decisions in the order of the codes; the resolution comes first."""

    @abstractmethod
    def slot_names(self) -> tuple[str, ...]:
        """One unique name per slot."""

    @abstractmethod
    def lower_slots(self, codes: tuple[int, ...]) -> tuple[OpSpec | None, ...]:
        """One operator per slot in execution order; None if the arch has no operator there.

        The first slot reads the image, and the last one computes the logits. Both are always
        present. Codes of inactive choices can have any value. Equal operators should be the same
        object (`hwnas.spaces.ops.conv` is cached), because tables of a whole space call this method
        thousands of times.
        """

    def reads(self) -> tuple[tuple[int, ...], ...] | None:
        """For each slot, the earlier slots whose sum it reads. None: a chain of slots."""
        return None

    def codes_of(self, text: str) -> tuple[int, ...] | None:
        """Reads an arch in the notation of the benchmark that published the space.

        Returns None if there is no such notation, or if the text does not use it.

        Raises:
            UserError: the text describes an arch of another space.
        """
        return None

    def text_of(self, codes: tuple[int, ...]) -> str:
        """The notation that `codes_of` reads, without the resolution; empty if there is none."""
        return ""

    def cells(self) -> Mapping[str, tuple[str, ...]]:
        """Maps each kind of cell to the slots of one such cell, for drawings. Empty: no cells."""
        return {}

    @property
    def cell_inputs(self) -> Mapping[str, str]:
        """Labels of cell inputs in drawings, e.g. {"pre0": "cell k-2"} for all slots `*.pre0`."""
        return {}

    @property
    def auxiliary_slot(self) -> str:
        """The slot whose output an auxiliary classifier reads in training; empty if none does."""
        return ""

    def op_choice(self, slot: str) -> str:
        """Name of the choice that selects the operator of a slot; it need not exist.

        Each value of this choice has its own weights in a supernet. By default, every slot has a
        choice of its own. A skeleton that repeats one cell has one choice for several slots.
        """
        return f"{slot}.op"

    def canonical(self, codes: Codes) -> Codes:
        """Replaces each row of codes [n, d] by the canonical row of the same network.

        The inactive codes of the given rows are already 0. By default, rows stay unchanged. In a
        space in which several rows describe one network, one of them is canonical.
        """
        return codes

    @property
    def has_duplicates(self) -> bool:
        """Whether `canonical` changes any codes. Such a space lists its archs (`listed`)."""
        return False

    def listed(self) -> Codes:
        """All canonical codes of the unrestricted space, if it `has_duplicates`."""
        raise NotImplementedError

    def predictor_graph(self) -> SlotGraph:
        """The slots and edges that accuracy predictors see; by default all of them.

        A skeleton that repeats one cell returns a single cell.
        """
        return self.slot_graph

    @cached_property
    def slot_graph(self) -> SlotGraph:
        """The graph of all slots, with the edges of `reads`."""
        return SlotGraph(tuple(range(len(self.slot_names()))), self.reads(), self.absent_passes)

    @property
    def is_chain(self) -> bool:
        """Whether every operator reads only the operator before it."""
        return self.slot_graph.reads is None

    def require(self, ability: Ability, *, space: str) -> None:
        """Refuses an operation that archs of this skeleton do not support.

        Raises:
            UserError: gives the reason.
        """
        if ability in self.lacks:
            raise UserError(
                f"space {space} has no {ability}",
                expected="a space whose skeleton has one, e.g. mobilenet_v3",
                found=self.lacks[ability],
                where="space",
            )
