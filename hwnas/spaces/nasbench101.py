"""NAS-Bench-101: cells that are graphs of convolutions and pooling; equal graphs are one arch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from hwnas.core.config import StrictModel
from hwnas.core.errors import UserError
from hwnas.spaces.cell_graphs import CellGraph, canonical_cell, graphs_of, pruned
from hwnas.spaces.choice import Choice, Codes
from hwnas.spaces.ops import OpSpec, conv, linear, mean
from hwnas.spaces.padding import map_size
from hwnas.spaces.skeleton import Ability, Skeleton, SlotGraph
from hwnas.spaces.space import SearchSpace

__all__ = ["Config", "GraphCells", "build"]

QUICK = {"resolutions": (8,), "width": 6, "cells_per_stage": 1, "max_vertices": 4}

OPS = ("maxpool3x3", "conv1x1-bn-relu", "conv3x3-bn-relu")
N_STAGES = 3

Pixels = Annotated[int, Field(ge=8, le=64)]


class Config(StrictModel):
    """Parameters of the space; defaults are those of the benchmark, except for `max_vertices`."""

    name: Literal["nasbench101"] = "nasbench101"
    resolutions: Annotated[tuple[Pixels, ...], Field(min_length=1)] = (32,)
    """Input resolutions to choose from, in px; the benchmark has 32."""
    max_vertices: Annotated[int, Field(ge=2, le=5)] = 5
    """Vertices of a cell, input and output included; the benchmark has up to 7."""
    width: Annotated[int, Field(ge=4, le=256)] = 128
    """Channels of the stem and of the first stage; every later stage doubles them."""
    cells_per_stage: Annotated[int, Field(ge=1, le=8)] = 3
    """Cells in each of the three stages."""


@dataclass(frozen=True)
class GraphCells(Skeleton):
    """The skeleton of NAS-Bench-101 (1902.09635, section 2.1): stages of identical cells.

    An arch chooses one of the canonical graphs (`cell_graphs`), and an operator for each of its
    inner vertices. A vertex reads the sum of its sources: a 1x1 projection of the cell's input, and
    the first channels of other vertices. The output concatenates its sources; an edge from input
    to output adds a projection of the input. Max pooling halves the map between two stages.
    """

    in_channels: int
    num_classes: int
    resolutions: tuple[int, ...]
    max_vertices: int
    width: int
    cells_per_stage: int
    ops: tuple[str, ...] = OPS

    absent_passes: ClassVar[bool] = False
    lacks: ClassVar[Mapping[Ability, str]] = {}

    @cached_property
    def graphs(self) -> tuple[CellGraph, ...]:
        """All graphs that a cell can have, sorted by their numbers of vertices, then of edges."""
        return tuple(g for n in range(2, self.max_vertices + 1) for g in graphs_of(n))

    @property
    def n_inner(self) -> int:
        """Inner vertices of the largest cells."""
        return self.max_vertices - 2

    def choices(self) -> tuple[Choice, ...]:
        """The resolution, the graph, and one operator per inner vertex of the graph."""
        found = [
            Choice("resolution", "resolution", self.resolutions),
            Choice("graph", "op", tuple(graph.name for graph in self.graphs)),
        ]
        for v in range(1, self.n_inner + 1):
            codes = tuple(i for i, graph in enumerate(self.graphs) if graph.n_vertices > v + 1)
            found.append(Choice(f"vertex{v}", "op", self.ops, parent=1, parent_codes=codes))
        return tuple(found)

    def op_choice(self, slot: str) -> str:
        """Name of the choice of a vertex; all cells share it, but each has its own weights."""
        return slot.rpartition(".")[2]

    @property
    def has_duplicates(self) -> bool:
        """True: labellings of a graph that are equal up to a symmetry describe the same cell."""
        return True

    def canonical(self, codes: Codes) -> Codes:
        """Replaces equal labellings of a graph (up to a symmetry) by the first in lexical order."""
        found: Codes = codes.copy()
        for number, graph in enumerate(self.graphs):
            if len(graph.symmetries) == 1:
                continue
            rows = codes[:, 1] == number
            inner = codes[rows, 2 : graph.n_vertices]
            if not len(inner):
                continue
            images = np.stack([inner[:, list(order)] for order in graph.symmetries])
            base = len(self.ops) ** np.arange(inner.shape[1])[::-1]
            best = (images * base).sum(axis=2).argmin(axis=0)
            found[rows, 2 : graph.n_vertices] = images[best, np.arange(len(inner))]
        return found

    def listed(self) -> Codes:
        """All cells at all resolutions."""
        rows = [
            (resolution, number, *labels, *[0] * (self.n_inner - len(labels)))
            for resolution in range(len(self.resolutions))
            for number, graph in enumerate(self.graphs)
            for labels in product(range(len(self.ops)), repeat=graph.n_vertices - 2)
        ]
        codes = np.array(rows, dtype=np.int16)
        found: Codes = codes[(self.canonical(codes) == codes).all(axis=1)]
        return found

    def codes_of(self, text: str) -> tuple[int, ...] | None:
        """Codes of a cell `{"matrix": [[0, 1], [0, 0]], "ops": ["input", "output"]}`.

        The operators include those of input and output, as in the code of NAS-Bench-101. The
        resolution is the largest one. Returns None if `text` does not begin with `{`.
        """
        if not text.lstrip().startswith("{"):
            return None
        try:
            data = json.loads(text)
        except ValueError as error:
            raise UserError(
                "the cell is not JSON",
                expected='{"matrix": [[0, 1], [0, 0]], "ops": ["input", "output"]}',
                found=error,
                where=text[:80],
            ) from error
        return self.codes_of_cell(data.get("matrix"), data.get("ops"), where=text[:80])

    def text_of(self, codes: tuple[int, ...]) -> str:
        """The canonical cell, as `codes_of` reads it."""
        graph = self.graphs[codes[1]]
        return graph.text([self.ops[code] for code in codes[2 : graph.n_vertices]])

    def codes_of_cell(self, matrix: Any, ops: Any, *, where: object = None) -> tuple[int, ...]:
        """Codes of the cell with this adjacency matrix and these operators of all its vertices.

        Raises:
            UserError: the matrix is not upper triangular, the cell has no path from input to
                output, or the space lacks it.
        """
        names = [str(op) for op in ops] if isinstance(ops, list | tuple) else []
        inner = names[1:-1]
        for op in inner:
            if op not in self.ops:
                raise UserError(
                    "the cell has an operator that is not in the space",
                    expected=f"one of {', '.join(self.ops)}",
                    found=op,
                    where=where,
                )
        n, edges, labels = pruned(matrix, inner, where=where)
        if n > self.max_vertices:
            raise UserError(
                "the cell has too many vertices",
                expected=f"at most {self.max_vertices} vertices (max_vertices)",
                found=f"{n} vertices",
                where=where,
                fix=f"set max_vertices of the space to {n}" if n <= 5 else None,
            )
        graph, chosen = canonical_cell(n, edges, [self.ops.index(label) for label in labels])
        codes = len(self.resolutions) - 1, self.graphs.index(graph), *chosen
        return (*codes, *[0] * (self.n_inner - len(chosen)))

    def _parts(self) -> list[tuple[str, int, int]]:
        """Slots of a cell: name, source and target of an edge; for a vertex, the vertex twice."""
        inner, out = range(1, self.n_inner + 1), self.n_inner + 1
        found = []
        for v in inner:
            found.append((f"in{v}", 0, v))
            found += [(f"edge{u}{v}", u, v) for u in inner if u < v]
            found.append((f"vertex{v}", v, v))
        found += [(f"out{v}", v, out) for v in inner]
        return [*found, ("concat", out, out), ("project", 0, out)]

    def slot_names(self) -> tuple[str, ...]:
        """Names such as `stem`, `stage0.cell0.vertex1`, `reduce1`, `pool`, `classifier`."""
        found = ["stem"]
        for s in range(N_STAGES):
            found += [f"reduce{s}"] if s else []
            found += [
                f"stage{s}.cell{c}.{name}"
                for c in range(self.cells_per_stage)
                for name, _, _ in self._parts()
            ]
        return (*found, "pool", "classifier")

    def lower_slots(self, codes: tuple[int, ...]) -> tuple[OpSpec | None, ...]:
        """See `Skeleton.lower_slots`."""
        return tuple(self._lower(codes))

    def _lower(self, codes: tuple[int, ...]) -> Iterator[OpSpec | None]:
        hw, before = self.resolutions[codes[0]], self.width
        yield conv(self.in_channels, before, hw, 3, 1, "relu")
        for s in range(N_STAGES):
            if s:
                half = map_size(hw, 2)
                yield OpSpec("max_pool", before, before, hw, half, kernel=2, stride=2)
                hw = half
            for _ in range(self.cells_per_stage):
                yield from self._cell(self.graphs[codes[1]], codes[2:], before, self.width << s, hw)
                before = self.width << s
        yield mean(before, hw)
        yield linear(before, self.num_classes)

    def _cell(
        self, graph: CellGraph, codes: tuple[int, ...], before: int, width: int, hw: int
    ) -> Iterator[OpSpec | None]:
        widths, edges, last = graph.widths(before, width), set(graph.edges), graph.n_vertices - 1
        n_out = sum((v, last) in edges for v in range(1, last))
        out = self.n_inner + 1  # number of the output among the slots, whatever the graph
        for name, i, target in self._parts():
            j = last if target == out else target
            if name == "concat":
                kind: Any = "concat" if n_out > 1 else "identity"
                yield OpSpec(kind, width, width, hw, hw) if n_out else None
            elif i >= last or (target >= last and target != out):  # the graph has fewer vertices
                yield None
            elif i == j:
                yield self._vertex(codes[i - 1], widths[i], hw)
            elif (i, j) not in edges:
                yield None
            elif i == 0:
                yield conv(before, widths[j], hw, 1, 1, "relu")
            elif j == last or widths[i] == widths[j]:
                yield OpSpec("identity", widths[i], widths[i], hw, hw)
            else:
                yield OpSpec("cut", widths[i], widths[j], hw, hw)

    def _vertex(self, code: int, width: int, hw: int) -> OpSpec:
        if self.ops[code] == "maxpool3x3":
            return OpSpec("max_pool", width, width, hw, hw, kernel=3, padding=1)
        kernels = {"conv1x1-bn-relu": 1, "conv3x3-bn-relu": 3}
        return conv(width, width, hw, kernels[self.ops[code]], 1, "relu")

    def reads(self) -> tuple[tuple[int, ...], ...]:
        """Slots that each slot reads, see the class."""
        found: list[tuple[int, ...]] = [()]
        value: tuple[int, ...] = (0,)
        for s in range(N_STAGES):
            if s:
                found.append(value)
                value = (len(found) - 1,)
            for _ in range(self.cells_per_stage):
                found += self._cell_reads(value, len(found))
                value = (len(found) - 2, len(found) - 1)
        return (*found, value, (len(found),))

    def _cell_reads(self, value: tuple[int, ...], first: int) -> Iterator[tuple[int, ...]]:
        """Slots that the slots of a cell read; slot `first` is the first of them."""
        parts = self._parts()
        number = {name: first + i for i, (name, _, _) in enumerate(parts)}
        for name, source, target in parts:
            if source == 0:
                yield value
            elif source < target:
                yield (number[f"vertex{source}"],)
            else:
                yield tuple(number[n] for n, i, j in parts if j == target and 0 < i != j) + (
                    (number[f"in{target}"],) if name != "concat" else ()
                )

    def predictor_graph(self) -> SlotGraph:
        """The graph of the last cell, between the stem and the pooling."""
        names, last = self.slot_names(), f"stage{N_STAGES - 1}.cell{self.cells_per_stage - 1}"
        inner = [f"{last}.{name}" for name, _, _ in self._parts()]
        reads = ((), *self._cell_reads((0,), 1), (len(inner) - 1, len(inner)))
        slots = tuple(names.index(name) for name in ("stem", *inner, "pool"))
        return SlotGraph(slots, reads, self.absent_passes)


def build(config: Config, *, num_classes: int, in_channels: int = 3) -> SearchSpace:
    """Cells of NAS-Bench-101 (1902.09635) of up to `max_vertices` vertices; 2,532 by default."""
    return SearchSpace(
        name="nasbench101",
        macro=GraphCells(
            in_channels=in_channels,
            num_classes=num_classes,
            resolutions=tuple(sorted(set(config.resolutions))),
            max_vertices=config.max_vertices,
            width=config.width,
            cells_per_stage=config.cells_per_stage,
        ),
    )
