"""Converts the cells of an arch to data for drawings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hwnas.spaces.arch import Arch
from hwnas.spaces.lowering import lower_named
from hwnas.spaces.network import Network
from hwnas.spaces.ops import OpSpec

if TYPE_CHECKING:
    from hwnas.spaces.space import SearchSpace

__all__ = ["CellView", "cell_views"]


@dataclass(frozen=True)
class CellView:
    """One cell of an arch, for a drawing.

    sources: for each operator, the positions in `ops` of the operators that it reads.
    inputs: for each operator, the label of the cell input that it reads, such as `cell k-2`; "" if
        it reads none.
    """

    kind: str
    ops: tuple[OpSpec, ...]
    sources: tuple[tuple[int, ...], ...]
    inputs: tuple[str, ...]


def cell_views(space: SearchSpace, arch: Arch) -> tuple[CellView, ...]:
    """Returns one cell of each kind; empty if the space has no cells.

    An `identity` whose slot is not in `Skeleton.cells` is drawn as a line.

    Raises:
        UserError: the arch does not belong to the space.
    """
    network, slots = lower_named(space, arch)
    position = {slot: i for i, slot in enumerate(slots)}
    found = []
    for kind, members in space.macro.cells().items():
        inner = [position[slot] for slot in members if slot in position]
        number = {i: n for n, i in enumerate(inner)}
        sources = [_sources(network, i, number) for i in inner]
        labels = [space.macro.cell_inputs.get(slots[i].rpartition(".")[2], "input") for i in inner]
        found.append(
            CellView(
                kind,
                tuple(network.ops[i] for i in inner),
                tuple(tuple(number[s] for s in read if s in number) for read in sources),
                tuple(
                    label if any(s not in number for s in read) else ""
                    for label, read in zip(labels, sources, strict=True)
                ),
            )
        )
    return tuple(found)


def _sources(network: Network, reader: int, inner: Mapping[int, int]) -> tuple[int, ...]:
    """Positions of the operators that an operator reads, through identities outside `inner`."""
    found: list[int] = []
    for source in network.sources[reader]:
        if network.ops[source].kind == "identity" and source not in inner:
            found += _sources(network, source, inner)
        else:
            found.append(source)
    return tuple(found)
