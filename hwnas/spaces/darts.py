"""DARTS: a normal and a reduction cell, each a graph of separable convolutions and pooling."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import combinations
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from hwnas.core.config import StrictModel
from hwnas.spaces.choice import Choice
from hwnas.spaces.genotypes import CELLS, N_INPUTS, N_NODES, read_genotype, write_genotype
from hwnas.spaces.ops import OpKind, OpSpec, conv, linear, mean
from hwnas.spaces.skeleton import Ability, Skeleton, SlotGraph
from hwnas.spaces.space import SearchSpace

__all__ = ["Config", "DartsCells", "build"]

QUICK = {"resolutions": (8,), "width": 4, "n_cells": 3}

OPS = (
    *("skip_connect", "max_pool_3x3", "avg_pool_3x3"),
    *("dil_conv_3x3", "dil_conv_5x5", "sep_conv_3x3", "sep_conv_5x5"),
)
"""Operators in ascending order of cost, so that the smallest arch is the cheapest and the largest
the most expensive.
"""
KINDS: dict[str, OpKind] = {
    **{"max_pool": "max_pool", "avg_pool": "avg_pool"},
    **{"dil_conv": "dil_conv", "sep_conv": "sep_conv"},
}
STEM_FACTOR = 3  # channels of the stem per channel of a node
NODES = range(N_INPUTS, N_INPUTS + N_NODES)
PAIRS = {node: tuple(combinations(range(node), 2)) for node in NODES}
"""Maps each node to the pairs of inputs that it can have."""

Pixels = Annotated[int, Field(ge=8, le=64, multiple_of=4)]


class Config(StrictModel):
    """Parameters of the space; the defaults are those of the search in DARTS (1806.09055)."""

    name: Literal["darts"] = "darts"
    resolutions: Annotated[tuple[Pixels, ...], Field(min_length=1)] = (32,)
    """Input resolutions to choose from, in px, multiples of 4."""
    width: Annotated[int, Field(ge=2, le=256, multiple_of=2)] = 16
    """Channels of a node in the first cells; each reduction cell doubles them. DARTS evaluates
    networks with 36.
    """
    n_cells: Annotated[int, Field(ge=3, le=32)] = 8
    """Number of cells; those at 1/3 and 2/3 of the depth are reduction cells. The paper evaluates
    networks with 20.
    """


@dataclass(frozen=True)
class DartsCells(Skeleton):
    """The skeleton of DARTS (1806.09055, section 4.1 and appendix A).

    A cell reads the outputs of the two cells before it, each through a 1x1 convolution. Each of its
    four nodes is the sum of two edges from different earlier values. Each edge chooses one of
    `ops`; edges from the inputs of a reduction cell have stride 2. The nodes are concatenated.
    Values are numbered as in genotypes: 0 and 1 are the inputs, 2 to 5 the nodes.
    """

    in_channels: int
    num_classes: int
    resolutions: tuple[int, ...]
    width: int
    n_cells: int
    ops: tuple[str, ...] = OPS

    absent_passes: ClassVar[bool] = False
    act_first: ClassVar[bool] = True  # appendix A.1.1: ReLU-conv-BN
    lacks: ClassVar[Mapping[Ability, str]] = {}

    def choices(self) -> tuple[Choice, ...]:
        """The resolution, then for each kind of cell and node: its two inputs and their operators.

        Node 2 has only two earlier values, and reads both.
        """
        found = [Choice("resolution", "resolution", self.resolutions)]
        for cell in CELLS:
            for node, pairs in PAIRS.items():
                column = len(found)
                if len(pairs) > 1:
                    values = tuple(f"{i}+{j}" for i, j in pairs)
                    found.append(Choice(f"{cell}.node{node}", "op", values))
                for source in range(node):
                    codes = tuple(code for code, pair in enumerate(pairs) if source in pair)
                    name = f"{cell}.edge{source}{node}"
                    if len(pairs) == 1:
                        found.append(Choice(name, "op", self.ops))
                    else:
                        found.append(Choice(name, "op", self.ops, column, codes))
        return tuple(found)

    def op_choice(self, slot: str) -> str:
        """Name of the choice of an edge; cells of a kind share the choice, but not its weights."""
        cell, _, edge = slot.partition(".")
        if not edge.startswith("edge"):
            return ""
        return f"{self._kind(int(cell.removeprefix('cell')))}.{edge}"

    # --- genotypes ----------------------------------------------------------------------------

    @cached_property
    def _columns(self) -> dict[str, int]:
        """Column of every choice, by name."""
        return {choice.name: column for column, choice in enumerate(self.choices())}

    def codes_of(self, text: str) -> tuple[int, ...] | None:
        """Codes of a genotype at the largest resolution; None if `text` is not a genotype."""
        cells = read_genotype(text, self.ops)
        if cells is None:
            return None
        codes = [len(self.resolutions) - 1, *[0] * (len(self._columns) - 1)]
        for kind, cell in cells.items():
            for (source, node), op in cell.items():
                codes[self._columns[f"{kind}.edge{source}{node}"]] = self.ops.index(op)
            for node, pairs in PAIRS.items():
                if len(pairs) > 1:
                    first, second = sorted(source for source, target in cell if target == node)
                    codes[self._columns[f"{kind}.node{node}"]] = pairs.index((first, second))
        return tuple(codes)

    def text_of(self, codes: tuple[int, ...]) -> str:
        """The genotype of an arch."""
        return write_genotype({kind: dict(self._edges(kind, codes)) for kind in CELLS})

    def _edges(self, kind: str, codes: Sequence[int]) -> Iterator[tuple[tuple[int, int], str]]:
        """The edges of a cell that an arch has, with their operators."""
        for node, pairs in PAIRS.items():
            code = codes[self._columns[f"{kind}.node{node}"]] if len(pairs) > 1 else 0
            for source in pairs[code]:
                op = self.ops[codes[self._columns[f"{kind}.edge{source}{node}"]]]
                yield (source, node), op

    # --- the network --------------------------------------------------------------------------

    def _kind(self, cell: int) -> str:
        """The kind of cell number `cell`, from 0."""
        return CELLS[cell in (self.n_cells // 3, 2 * self.n_cells // 3)]

    def slot_names(self) -> tuple[str, ...]:
        """Names such as `stem`, `cell0.pre1`, `cell0.edge02`, `cell0.node2`, `cell0.concat`."""
        inner = [f"cell{c}.{part}" for c in range(self.n_cells) for part, _ in _cell_reads()]
        return ("stem", *inner, "pool", "classifier")

    def lower_slots(self, codes: tuple[int, ...]) -> tuple[OpSpec | None, ...]:
        """See `Skeleton.lower_slots`."""
        hw = self.resolutions[codes[0]]
        cells = {kind: tuple(self._edges(kind, codes)) for kind in CELLS}
        stem = STEM_FACTOR * self.width
        found: list[OpSpec | None] = [conv(self.in_channels, stem, hw, 3, 1, "none")]
        before, width = [(stem, hw), (stem, hw)], self.width
        for c in range(self.n_cells):
            kind = self._kind(c)
            width *= 1 + (kind == "reduce")
            found += _lower_cell(cells[kind], before[0], before[1], width, kind == "reduce")
            out = found[-1]
            assert out is not None
            before = [before[1], (out.out_channels, out.out_hw)]
        return (*found, mean(*before[1]), linear(before[1][0], self.num_classes))

    def reads(self) -> tuple[tuple[int, ...], ...]:
        """Slots that each slot reads; the first two cells read the stem."""
        found: list[tuple[int, ...]] = [()]
        inputs = [0, 0]
        for _ in range(self.n_cells):
            found += _numbered(inputs, len(found))
            inputs = [inputs[1], len(found) - 1]
        n = len(found)
        return (*found, (n - 1,), (n,))

    def cells(self) -> Mapping[str, tuple[str, ...]]:
        """Maps each kind of cell to the slots of its first cell."""
        kinds = [self._kind(c) for c in range(self.n_cells)]
        return {
            kind: tuple(f"cell{kinds.index(kind)}.{part}" for part, _ in _cell_reads())
            for kind in CELLS
        }

    @property
    def cell_inputs(self) -> Mapping[str, str]:
        """See `Skeleton.cell_inputs`."""
        return {"pre0": "cell k-2", "pre1": "cell k-1"}

    def predictor_graph(self) -> SlotGraph:
        """The edges of one cell of each kind, in a chain between stem and pooling.

        The second cell reads the first one as its input 1.
        """
        kinds, names = [self._kind(c) for c in range(self.n_cells)], self.slot_names()
        chosen = sorted({kinds.index("reduce"), self.n_cells - 1 - kinds[::-1].index("normal")})
        slots = [names.index("stem")]
        reads: list[tuple[int, ...]] = [()]
        values: list[tuple[int, ...]] = [(0,), (0,)]  # slots that add up to each value of a cell
        for c in chosen:
            first = len(slots)
            for node in NODES:
                slots += [names.index(f"cell{c}.edge{source}{node}") for source in range(node)]
                reads += values[:node]
                values.append(tuple(range(len(slots) - node, len(slots))))
            values = [(0,), tuple(range(first, len(slots)))]
        slots.append(names.index("pool"))
        return SlotGraph(tuple(slots), (*reads, values[1]), self.absent_passes)

    @property
    def auxiliary_slot(self) -> str:
        """The output of the second reduction cell."""
        return f"cell{2 * self.n_cells // 3}.concat"


@lru_cache(maxsize=1)
def _cell_reads() -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Parts of a cell, and the parts that they read; `-2` and `-1` are the cells before."""
    found: list[tuple[str, tuple[str, ...]]] = [("pre0", ("-2",)), ("pre1", ("-1",))]
    for node in NODES:
        into = [f"edge{source}{node}" for source in range(node)]
        sources = [("pre" if source < N_INPUTS else "node") + str(source) for source in range(node)]
        found += [(edge, (source,)) for edge, source in zip(into, sources, strict=True)]
        found.append((f"node{node}", tuple(into)))
    return (*found, ("concat", tuple(f"node{node}" for node in NODES)))


def _numbered(inputs: Sequence[int], first: int) -> list[tuple[int, ...]]:
    """Slots read by the slots of a cell from `first` on; `inputs`: the two outputs it reads."""
    number = {name: first + i for i, (name, _) in enumerate(_cell_reads())}
    number |= {"-2": inputs[0], "-1": inputs[1]}
    return [tuple(number[source] for source in sources) for _, sources in _cell_reads()]


@lru_cache(maxsize=1 << 12)
def _lower_cell(
    edges: tuple[tuple[tuple[int, int], str], ...],
    first: tuple[int, int],
    second: tuple[int, int],
    width: int,
    reduces: bool,
) -> tuple[OpSpec | None, ...]:
    """Operators of a cell; `first` and `second` are channels and px of the cells before."""
    hw, ops = second[1], dict(edges)
    out_hw = hw // 2 if reduces else hw
    halved = OpSpec("factorized", first[0], width, first[1], hw, stride=2, act="relu")
    found: list[OpSpec | None] = [
        conv(first[0], width, hw, 1, 1, "relu") if first[1] == hw else halved,
        conv(second[0], width, hw, 1, 1, "relu"),
    ]
    for node in NODES:
        for source in range(node):
            stride = 2 if reduces and source < N_INPUTS else 1
            name = ops.get((source, node))
            found.append(_edge(name, width, out_hw * stride, stride) if name else None)
        found.append(OpSpec("identity", width, width, out_hw, out_hw))
    total = N_NODES * width
    return (*found, OpSpec("concat", total, total, out_hw, out_hw))


@lru_cache(maxsize=1 << 10)
def _edge(name: str, width: int, hw: int, stride: int) -> OpSpec:
    """Operator of an edge; windows are padded so that stride 1 keeps the map."""
    out_hw = hw // stride
    if name == "skip_connect":
        if stride == 1:
            return OpSpec("identity", width, width, hw, hw)
        return OpSpec("factorized", width, width, hw, out_hw, stride=stride, act="relu")
    kind, _, size = name.rpartition("_")
    kernel, dilation = int(size[0]), 2 if kind == "dil_conv" else 1
    return OpSpec(
        KINDS[kind],
        width,
        width,
        hw,
        out_hw,
        kernel=kernel,
        stride=stride,
        padding=dilation * (kernel // 2),
        act="relu" if kind.endswith("conv") else "none",
        dilation=dilation,
    )


def build(config: Config, *, num_classes: int, in_channels: int = 3) -> SearchSpace:
    """The space of DARTS (1806.09055) on CIFAR: 1.04e9 cells of each kind."""
    return SearchSpace(
        name="darts",
        macro=DartsCells(
            in_channels=in_channels,
            num_classes=num_classes,
            resolutions=tuple(sorted(set(config.resolutions))),
            width=config.width,
            n_cells=config.n_cells,
        ),
    )
