"""Cell networks: stages of identical cells. The cell is searched."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

from hwnas.core.errors import UserError
from hwnas.spaces.choice import Choice
from hwnas.spaces.ops import OpSpec, conv, linear, mean
from hwnas.spaces.padding import map_size
from hwnas.spaces.skeleton import Ability, Skeleton, SlotGraph

__all__ = ["CellMacro", "cell_view"]

REDUCTION = ("conv_a", "conv_b", "pool", "shortcut")
"""Parts of the residual block between two stages."""


@dataclass(frozen=True)
class CellMacro(Skeleton):
    """The skeleton of NAS-Bench-201 (2001.00326, section 2.1): stages of identical cells.

    A cell is a complete graph of `n_nodes` ordered nodes. Every edge chooses one of `ops`. A
    residual block between two stages halves the map and doubles the channels.
    """

    in_channels: int
    num_classes: int
    resolutions: tuple[int, ...]
    widths: tuple[int, ...]
    cells_per_stage: int
    n_nodes: int
    ops: tuple[str, ...]

    absent_passes: ClassVar[bool] = False  # `none` outputs zeros; it does not pass its input on
    act_first: ClassVar[bool] = True  # 2001.00326, section 2
    lacks: ClassVar[Mapping[Ability, str]] = {}

    @property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """(source, target) of every edge, sorted by target as in the strings of NAS-Bench-201."""
        return tuple((i, j) for j in range(1, self.n_nodes) for i in range(j))

    @property
    def n_stages(self) -> int:
        """Number of stages; a residual block with stride 2 is between two of them."""
        return len(self.widths)

    def choices(self) -> tuple[Choice, ...]:
        """The resolution, then one operator per edge."""
        edges = (Choice(f"edge{i}{j}", "op", self.ops) for i, j in self.edges)
        return (Choice("resolution", "resolution", self.resolutions), *edges)

    def slot_names(self) -> tuple[str, ...]:
        """Names such as `stem`, `stage0.cell0.edge01`, `reduce1.conv_a`, `norm`, `pool`."""
        found = ["stem"]
        for s in range(self.n_stages):
            if s:
                found += [f"reduce{s}.{part}" for part in REDUCTION]
            found += [
                f"stage{s}.cell{c}.edge{i}{j}"
                for c in range(self.cells_per_stage)
                for i, j in self.edges
            ]
        return (*found, "norm", "pool", "classifier")

    def codes_of(self, text: str) -> tuple[int, ...] | None:
        """Codes of a cell in the notation of NAS-Bench-201, `|op~0|+|op~0|op~1|+...`.

        The resolution is the largest one. Returns None if `text` has no `|`.
        """
        if "|" not in text:
            return None
        view = cell_view(text)
        names = [f"edge{i}{j}" for i, j in self.edges]
        if list(view or ()) != names:
            form = "+".join(
                "".join(f"|op~{i}" for i in range(j)) + "|" for j in range(1, self.n_nodes)
            )
            raise UserError("not a cell of this space", expected=form, found=text)
        assert view is not None
        for name, op in view.items():
            if op not in self.ops:
                raise UserError(
                    f"{name} of the cell has an operator that is not in the space",
                    expected=f"one of {', '.join(self.ops)}",
                    found=op,
                    where=text,
                )
        return (len(self.resolutions) - 1, *(self.ops.index(op) for op in view.values()))

    def text_of(self, codes: tuple[int, ...]) -> str:
        """The cell in the notation of NAS-Bench-201."""
        ops = dict(zip(self.edges, self._chosen(codes)[1], strict=True))
        nodes = ("".join(f"|{ops[i, j]}~{i}" for i in range(j)) for j in range(1, self.n_nodes))
        return "+".join(f"{node}|" for node in nodes)

    def op_choice(self, slot: str) -> str:
        """Name of the choice of an edge; all cells share it, but each has its own weights."""
        return slot.rpartition(".")[2]

    def lower_slots(self, codes: tuple[int, ...]) -> tuple[OpSpec | None, ...]:
        """See `Skeleton.lower_slots`."""
        return tuple(self._lower(codes))

    def _chosen(self, codes: tuple[int, ...]) -> tuple[Sequence[tuple[int, int]], Sequence[str]]:
        """Widths of every stage, before and after its cells, and the operators of a cell."""
        return [(width, width) for width in self.widths], [self.ops[code] for code in codes[1:]]

    def _lower(self, codes: tuple[int, ...]) -> Iterator[OpSpec | None]:
        hw = self.resolutions[codes[0]]
        widths, ops = self._chosen(codes)
        before = self.in_channels
        for s, (reduced, width) in enumerate(widths):
            if s == 0:
                yield conv(before, reduced, hw, 3, 1, "none")
            else:
                half = map_size(hw, 2)
                yield conv(before, reduced, hw, 3, 2, "relu")
                yield conv(reduced, reduced, half, 3, 1, "relu")
                yield OpSpec("avg_pool", before, before, hw, half, kernel=2, stride=2)
                yield OpSpec("conv", before, reduced, half, half, norm="none")
                hw = half
            before = reduced
            for _ in range(self.cells_per_stage):
                for (source, _), op in zip(self.edges, ops, strict=True):
                    yield _cell_op(op, width if source else before, width, hw)
                before = width
        yield OpSpec("norm", width, width, hw, hw, act="relu")
        yield mean(width, hw)
        yield linear(width, self.num_classes)

    def reads(self) -> tuple[tuple[int, ...], ...]:
        """Slots that each slot reads.

        An edge reads its source node, which is the sum of all edges that end in this node.
        """
        found: list[tuple[int, ...]] = [()]
        value: tuple[int, ...] = (0,)  # slots whose sum is the current value; first the stem
        for s in range(self.n_stages):
            if s:
                a = len(found)
                found += [value, (a,), value, (a + 2,)]
                value = (a + 1, a + 3)
            for _ in range(self.cells_per_stage):
                nodes = self._nodes(value, len(found))
                found += [nodes[i] for i, _ in self.edges]
                value = nodes[-1]
        n = len(found)
        return (*found, value, (n,), (n + 1,))

    def predictor_graph(self) -> SlotGraph:
        """The graph of the last cell, between the stem (its input) and the pooling (its output).

        One cell is enough, because all cells of an arch are equal.
        """
        names = self.slot_names()
        last = f"stage{self.n_stages - 1}.cell{self.cells_per_stage - 1}"
        inner = [f"{last}.edge{i}{j}" for i, j in self.edges]
        nodes = self._nodes((0,), 1)
        reads = ((), *(nodes[i] for i, _ in self.edges), nodes[-1])
        slots = tuple(names.index(name) for name in ("stem", *inner, "pool"))
        return SlotGraph(slots, reads, self.absent_passes)

    def _nodes(self, value: tuple[int, ...], first: int) -> list[tuple[int, ...]]:
        """Slots summed in each node of a cell that reads `value`; slot `first` is edge 01."""
        into = [
            tuple(first + e for e, (_, target) in enumerate(self.edges) if target == node)
            for node in range(1, self.n_nodes)
        ]
        return [value, *into]


def cell_view(text: str) -> dict[str, str] | None:
    """Reads a cell such as `|op~0|+|op~0|op~1|` and returns its operators by edge (`edge01`).

    `+` separates the nodes; `op~0` is an operator that reads node 0 (2001.00326, released API).
    Returns None if the text has another form.
    """
    view: dict[str, str] = {}
    for node, inputs in enumerate(text.split("+"), start=1):
        if not re.fullmatch(r"\|(\w+~\d\|)+", inputs):
            return None
        for edge in inputs.strip("|").split("|"):
            op, source = edge.split("~")
            view[f"edge{source}{node}"] = op
    return view


@cache
def _cell_op(name: str, before: int, width: int, hw: int) -> OpSpec | None:
    """Operator of one edge of a cell; convolutions are act-conv-BN (2001.00326, section 2).

    before: channels that the edge reads. If they differ from `width`, `skip_connect` is a 1x1
        convolution with BN.
    """
    if name == "none":
        return None
    if name == "skip_connect":
        if before != width:
            return conv(before, width, hw, 1, 1, "none")
        return OpSpec("identity", width, width, hw, hw)
    if name == "avg_pool_3x3":
        return OpSpec("avg_pool", width, width, hw, hw, kernel=3, padding=1)
    kernel = {"nor_conv_1x1": 1, "nor_conv_3x3": 3}[name]
    return conv(before, width, hw, kernel, 1, "relu")
