"""DARTS on text: a recurrent cell of eight nodes, for language models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from hwnas.core.config import StrictModel
from hwnas.spaces.choice import Choice
from hwnas.spaces.ops import OpSpec, RecurrentAct, linear
from hwnas.spaces.recurrent_genotypes import (
    ACTIVATIONS,
    N_STATES,
    read_recurrent,
    write_recurrent,
)
from hwnas.spaces.skeleton import Ability, Skeleton
from hwnas.spaces.space import SearchSpace

__all__ = ["Config", "RecurrentCell", "build"]

QUICK = {"width": 32}

NODES = range(1, N_STATES + 1)
ACTS: Mapping[str, RecurrentAct] = {
    "identity": "none",
    "relu": "relu",
    "sigmoid": "sigmoid",
    "tanh": "tanh",
}
"""Maps each name in `ACTIVATIONS` to the name that `OpSpec.act` uses."""


class Config(StrictModel):
    """Parameters of the space."""

    name: Literal["darts_ptb"] = "darts_ptb"
    width: Annotated[int, Field(ge=4, le=4096)] = 300
    """Units of the state, of every node and of the embedding. DARTS evaluates networks with 850."""


@dataclass(frozen=True)
class RecurrentCell(Skeleton):
    """The recurrent skeleton of DARTS (1806.09055, sections 3.1.2 and A.1.2).

    A network computes one step: it reads a token and the state, and returns the logits of the next
    token and the next state. `join` computes value 0 from the embedding of the token and the state.
    Node i is a `highway` from one earlier value. The mean of the eight nodes is the next state. It
    feeds the classifier, whose weights are also the embedding (tied). No edge of the network stands
    for the state: `join` reads it, and `fold` writes it.
    """

    num_classes: int
    width: int
    in_channels: int = 1
    resolutions: tuple[int, ...] = (1,)

    absent_passes: ClassVar[bool] = False
    reads_tokens: ClassVar[bool] = True
    lacks: ClassVar[Mapping[Ability, str]] = {}

    def choices(self) -> tuple[Choice, ...]:
        """The resolution (one value), then the input and the activation of each node.

        Node 1 has no choice of input, because value 0 is the only earlier value.
        """
        found = [Choice("resolution", "resolution", self.resolutions)]
        for node in NODES:
            if node > 1:
                found.append(Choice(f"node{node}.input", "op", tuple(range(node))))
            found.append(Choice(f"node{node}.act", "op", ACTIVATIONS))
        return tuple(found)

    def op_choice(self, slot: str) -> str:
        """Always empty: a node has the same weights for all of its inputs and activations."""
        return ""

    @cached_property
    def _columns(self) -> dict[str, int]:
        """Column of every choice, by name."""
        return {choice.name: column for column, choice in enumerate(self.choices())}

    def _nodes(self, codes: tuple[int, ...]) -> tuple[tuple[str, int], ...]:
        """Activation and input of every node."""
        found = []
        for node in NODES:
            act = ACTIVATIONS[codes[self._columns[f"node{node}.act"]]]
            found.append((act, codes[self._columns[f"node{node}.input"]] if node > 1 else 0))
        return tuple(found)

    def codes_of(self, text: str) -> tuple[int, ...] | None:
        """Codes of a genotype (see `read_recurrent`); None if `text` is not a genotype."""
        nodes = read_recurrent(text)
        if nodes is None:
            return None
        codes = [0] * len(self._columns)
        for node, (act, source) in zip(NODES, nodes, strict=True):
            codes[self._columns[f"node{node}.act"]] = ACTIVATIONS.index(act)
            if node > 1:
                codes[self._columns[f"node{node}.input"]] = source
        return tuple(codes)

    def text_of(self, codes: tuple[int, ...]) -> str:
        """The genotype of an arch."""
        return write_recurrent(self._nodes(codes))

    # --- the network --------------------------------------------------------------------------

    def slot_names(self) -> tuple[str, ...]:
        """`embed`, `join`, per node `edge02`, `edge12`, ... and `node2`, `concat`, `state`."""
        return ("embed", "join", *_inner(), "concat", "state", "classifier")

    def lower_slots(self, codes: tuple[int, ...]) -> tuple[OpSpec | None, ...]:
        """See `Skeleton.lower_slots`. An edge is an `identity`, which costs nothing."""
        width, nodes = self.width, self._nodes(codes)
        found: list[OpSpec | None] = [_vector("embed", 1, width), _vector("join", width, width)]
        for node, (act, chosen) in zip(NODES, nodes, strict=True):
            through = _vector("identity", width, width)
            found += [through if source == chosen else None for source in range(node)]
            found.append(_vector("highway", width, width, ACTS[act]))
        whole = N_STATES * width
        found += [_vector("concat", whole, whole), _vector("fold", whole, width)]
        return (*found, linear(width, self.num_classes))

    def reads(self) -> tuple[tuple[int, ...], ...]:
        """Slots that each slot reads."""
        found: list[tuple[int, ...]] = [(), (0,)]
        values = [1]  # slots of the values 0, 1, ...
        for node in NODES:
            first = len(found)
            found += [(values[source],) for source in range(node)]
            found.append(tuple(range(first, first + node)))
            values.append(len(found) - 1)
        n = len(found)
        return (*found, tuple(values[1:]), (n,), (n + 1,))

    def cells(self) -> Mapping[str, tuple[str, ...]]:
        """Slots of the cell for drawings: without edges, which are drawn as lines."""
        nodes = tuple(f"node{node}" for node in NODES)
        return {"recurrent": ("join", *nodes, "concat", "state")}

    @property
    def cell_inputs(self) -> Mapping[str, str]:
        """See `Skeleton.cell_inputs`."""
        return {"join": "token, state"}


def _inner() -> tuple[str, ...]:
    """Slots of edges and nodes."""
    found: list[str] = []
    for node in NODES:
        found += [*(f"edge{source}{node}" for source in range(node)), f"node{node}"]
    return tuple(found)


@lru_cache(maxsize=1 << 10)
def _vector(
    kind: Literal["embed", "join", "highway", "fold", "identity", "concat"],
    in_channels: int,
    out_channels: int,
    act: RecurrentAct = "none",
) -> OpSpec:
    return OpSpec(kind, in_channels, out_channels, 1, 1, act="tanh" if kind == "join" else act)


def build(config: Config, *, num_classes: int, in_channels: int = 1) -> SearchSpace:
    """The space of recurrent cells of DARTS (1806.09055): 2.6e9 cells.

    num_classes: words of the vocabulary. in_channels: not used, a step reads one token.
    """
    return SearchSpace("darts_ptb", RecurrentCell(num_classes=num_classes, width=config.width))
