"""NAS-Bench-NLP: recurrent cells as graphs of up to 14 nodes, only for records and predictors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Annotated, ClassVar, Literal, NamedTuple

from pydantic import Field

from hwnas.core.config import StrictModel
from hwnas.core.errors import UserError
from hwnas.spaces.choice import Choice
from hwnas.spaces.nlp_recipes import INPUTS, MAX_NODES, N_STATES, Cell, read_recipe, write_recipe
from hwnas.spaces.ops import OpKind, OpSpec, RecurrentAct, linear
from hwnas.spaces.skeleton import Ability, Skeleton, SlotGraph
from hwnas.spaces.space import SearchSpace

__all__ = ["Config", "RecipeCells", "build"]

QUICK = {"width": 8}
NOT_TRAINED = "cells of NAS-Bench-NLP are only read from records; they are not trained"

NODES = range(MAX_NODES)
NODE_NAMES = tuple(f"node{i}" for i in NODES)
VALUES = (*INPUTS, *NODE_NAMES)
"""Names of all values; node i can read the first `len(INPUTS) + i`."""
PORTS = ("gate", "input0", "input1", "input2")
"""The inputs of a node. Only a `blend` has a gate, its first input."""
NONE = "none"
ACTS: Mapping[str, RecurrentAct] = {
    "activation_tanh": "tanh",
    "activation_sigm": "sigmoid",
    "activation_leaky_relu": "leaky_relu",
}
PORTS_OF: Mapping[str, tuple[str, ...]] = {
    NONE: (),
    "linear_2": PORTS[1:3],
    "linear_3": PORTS[1:],
    "blend": PORTS[:3],
    "elementwise_prod": PORTS[1:3],
    "elementwise_sum": PORTS[1:3],
    **dict.fromkeys(ACTS, PORTS[1:2]),
}
"""The ports of each operator, in the order of its inputs. A `linear` has 2 or 3 inputs."""
OP_NAMES = tuple(PORTS_OF)
BLOCKS = ("linear_2", "linear_3", "blend", "elementwise_prod")
"""Operators that read a concatenation of their inputs instead of the sum."""


class Config(StrictModel):
    """Parameters of the space."""

    name: Literal["nasbench_nlp"] = "nasbench_nlp"
    width: Annotated[int, Field(ge=4, le=4096)] = 600
    """Units of every state and node and of the embedding; the benchmark has up to 600."""


class _NodeSlots(NamedTuple):
    """Positions of the slots of one node.

    links: for each port, the first of its links; the link of source s is s slots after it.
    """

    links: dict[str, int]
    gate: int
    inputs: int
    node: int


@dataclass(frozen=True)
class RecipeCells(Skeleton):
    """The recurrent cells of NAS-Bench-NLP (2006.07116), as one layer.

    A network computes one step: it reads a token and up to three states, and returns the logits of
    the next token and the next states. A choice selects the operator of a node, and one choice per
    port the value that it reads there. A link, an `identity`, is present if it is selected, and
    `inputs` is the sum or the concatenation of the selected ones, in the order of the ports. The
    gate of a `blend` is an `identity` too, so that predictors can tell it from the other inputs. A
    node without an operator is zero. State 0 is also the output.

    The benchmark has three such layers of 600, 600 and 400 units, whose first reads an embedding of
    400. This skeleton has one layer of one width, and an embedding that is tied to the classifier.
    """

    num_classes: int
    width: int
    in_channels: int = 1
    resolutions: tuple[int, ...] = (1,)

    absent_passes: ClassVar[bool] = False
    reads_tokens: ClassVar[bool] = True
    lacks: ClassVar[Mapping[Ability, str]] = {"supernet": NOT_TRAINED, "static net": NOT_TRAINED}

    def choices(self) -> tuple[Choice, ...]:
        """The resolution (one value), operator and inputs of each node, the node of each state."""
        found = [Choice("resolution", "resolution", self.resolutions)]
        for i in NODES:
            parent = len(found)
            found.append(Choice(f"node{i}.op", "op", OP_NAMES))
            for port in PORTS:
                codes = tuple(i for i, name in enumerate(OP_NAMES) if port in PORTS_OF[name])
                sources = VALUES[: len(INPUTS) + i]
                found.append(Choice(f"node{i}.{port}", "op", sources, parent, codes))
        found.append(Choice("state0.input", "op", NODE_NAMES))
        more = (NONE, *NODE_NAMES)
        return (*found, *(Choice(f"state{k}.input", "op", more) for k in range(1, N_STATES)))

    def op_choice(self, slot: str) -> str:
        """Name of the choice of a node; other slots have none."""
        return f"{slot}.op" if slot in NODE_NAMES else ""

    # --- codes and recipes --------------------------------------------------------------------

    def _nodes(self, codes: tuple[int, ...]) -> list[tuple[int, tuple[int, ...]]]:
        """The code of the operator and the sources of every node."""
        found = []
        for i in NODES:
            op, *sources = codes[1 + i * (1 + len(PORTS)) : 1 + (i + 1) * (1 + len(PORTS))]
            chosen = dict(zip(PORTS, sources, strict=True))
            found.append((op, tuple(chosen[port] for port in PORTS_OF[OP_NAMES[op]])))
        return found

    def _states(self, codes: tuple[int, ...]) -> tuple[int, ...]:
        """The node of every state; -1: the arch lacks the state."""
        first, *others = codes[-N_STATES:]
        return first, *(code - 1 for code in others)

    def codes_of_cell(self, cell: Cell) -> tuple[int, ...]:
        """Codes of a cell."""
        codes = [0]
        for i in NODES:
            op, sources = cell.nodes[i] if i < len(cell.nodes) else (NONE, ())
            name = op if op in PORTS_OF else f"{op}_{len(sources)}"
            chosen = dict(zip(PORTS_OF[name], sources, strict=True))
            codes += [OP_NAMES.index(name), *(chosen.get(port, 0) for port in PORTS)]
        states = [*cell.states, *[-1] * (N_STATES - len(cell.states))]
        return (*codes, states[0], *(state + 1 for state in states[1:]))

    def codes_of(self, text: str) -> tuple[int, ...] | None:
        """Codes of a recipe of NAS-Bench-NLP in JSON; None if `text` does not begin with `{`."""
        if not text.lstrip().startswith("{"):
            return None
        try:
            recipe = json.loads(text)
        except ValueError as error:
            raise UserError("the recipe is not JSON", found=error, where=text[:80]) from error
        return self.codes_of_cell(read_recipe(recipe, where=text[:80]))

    def text_of(self, codes: tuple[int, ...]) -> str:
        """The recipe; empty if a value that is read does not exist, or two states are one node."""
        nodes, states = self._nodes(codes), [s for s in self._states(codes) if s >= 0]
        present = [i for i in NODES if nodes[i][0]]
        number = {len(INPUTS) + i: len(INPUTS) + place for place, i in enumerate(present)}
        number |= {i: i for i in range(1 + len(states))}
        read = {source for _, sources in nodes for source in sources}
        read |= {len(INPUTS) + state for state in states}
        if not read <= number.keys() or len(set(states)) < len(states):
            return ""
        ops = [(OP_NAMES[code].removesuffix(f"_{len(read)}"), read) for code, read in nodes if code]
        found = tuple((op, tuple(number[source] for source in read)) for op, read in ops)
        return json.dumps(write_recipe(Cell(found, tuple(present.index(s) for s in states))))

    # --- the network --------------------------------------------------------------------------

    def slot_names(self) -> tuple[str, ...]:
        """`embed`, `h_prev_0`, ..., per node its links and `node0`, per state its links, `cut`."""
        found = ["embed", *INPUTS[1:]]
        for i in NODES:
            sources = VALUES[: len(INPUTS) + i]
            links = [f"node{i}.{port}.{source}" for port in PORTS for source in sources]
            n = len(sources)
            found += [*links[:n], f"node{i}.gate", *links[n:], f"node{i}.inputs", f"node{i}"]
        for k in range(N_STATES):
            found += [*(f"state{k}.{name}" for name in NODE_NAMES), f"state{k}"]
        return (*found, "cut", "classifier")

    @cached_property
    def _slots(self) -> tuple[_NodeSlots, ...]:
        """Positions of the slots of each node."""
        found, first = [], len(INPUTS)
        for i in NODES:
            n = len(INPUTS) + i
            links = {port: first + place * n + (place > 0) for place, port in enumerate(PORTS)}
            last = first + len(PORTS) * n + 1
            found.append(_NodeSlots(links, first + n, last, last + 1))
            first = last + 2
        return tuple(found)

    @cached_property
    def _values(self) -> tuple[int, ...]:
        """Slots of the values in the order of `VALUES`."""
        return (*range(len(INPUTS)), *(slots.node for slots in self._slots))

    def _state_slot(self, k: int) -> int:
        """Slot of state k, after its links."""
        return self._slots[-1].node + (k + 1) * (MAX_NODES + 1)

    def lower_slots(self, codes: tuple[int, ...]) -> tuple[OpSpec | None, ...]:
        """See `Skeleton.lower_slots`. Links, gates and sums are `identity`, which costs nothing."""
        width, whole = self.width, N_STATES * self.width
        found: list[OpSpec | None] = [None] * (self._state_slot(N_STATES - 1) + 3)
        through = _vector("identity", width, width)
        found[0] = _vector("embed", 1, width)
        for k in range(N_STATES):
            found[1 + k] = _vector("recall", width, width, first=k * width)
        for (op, sources), slots in zip(self._nodes(codes), self._slots, strict=True):
            name = OP_NAMES[op]
            for source, port in zip(sources, PORTS_OF[name], strict=True):
                found[slots.links[port] + source] = through
            if name == "blend":
                found[slots.gate] = through
            n = len(sources) if name in BLOCKS else 1
            if sources:
                found[slots.inputs] = _vector("concat", n * width, n * width) if n > 1 else through
                found[slots.node] = self._node(name, n * width)
        for k, node in enumerate(self._states(codes)):
            if node >= 0:
                state = self._state_slot(k)
                found[state - MAX_NODES + node] = through
                found[state] = _vector("store", width, whole, first=k * width)
        found[-2:] = _vector("cut", whole, width), linear(width, self.num_classes)
        return tuple(found)

    def _node(self, name: str, in_channels: int) -> OpSpec:
        """The operator of a node."""
        width = self.width
        if name.startswith("linear"):
            return linear(in_channels, width)
        if name in ACTS:
            return _vector("activation", width, width, ACTS[name])
        kinds: dict[str, OpKind] = {"blend": "blend", "elementwise_prod": "product"}
        return _vector(kinds.get(name, "identity"), in_channels, width)

    def reads(self) -> tuple[tuple[int, ...], ...]:
        """Slots that each slot reads. The states of the step before are fed by the embedding, so
        that they count as operators that run; they read no value of this step.
        """
        found: list[tuple[int, ...]] = [(), *[(0,)] * N_STATES]
        for i, slots in zip(NODES, self._slots, strict=True):
            sources = [(value,) for value in self._values[: len(INPUTS) + i]]
            found += [*sources, tuple(range(slots.links["gate"], slots.gate))]
            found += sources * (len(PORTS) - 1)
            found += [tuple(range(slots.gate, slots.inputs)), (slots.inputs,)]
        for _ in range(N_STATES):
            first = len(found)
            found += [(slots.node,) for slots in self._slots]
            found.append(tuple(range(first, first + MAX_NODES)))
        states = tuple(self._state_slot(k) for k in range(N_STATES))
        return (*found, states, (len(found),))

    def predictor_graph(self) -> SlotGraph:
        """The graph of embedding, states, nodes and gates; links are edges."""
        gates = [slots.gate for slots in self._slots]
        nodes = [slots.node for slots in self._slots]
        inner = [slot for pair in zip(gates, nodes, strict=True) for slot in pair]
        states = [self._state_slot(k) for k in range(N_STATES)]
        slots = (*range(len(INPUTS)), *inner, *states, states[-1] + 1, states[-1] + 2)
        place = {slot: i for i, slot in enumerate(slots)}
        fixed: dict[int, tuple[int, ...]] = {1 + k: (0,) for k in range(N_STATES)}
        fixed |= {node: (gate,) for gate, node in zip(gates, nodes, strict=True)}
        fixed |= {states[-1] + 1: tuple(states), states[-1] + 2: (states[-1] + 1,)}
        links = []
        for i, of in enumerate(self._slots):
            for s, value in enumerate(self._values[: len(INPUTS) + i]):
                for port, link in of.links.items():
                    reader = of.gate if port == "gate" else of.node
                    links.append((link + s, place[reader], place[value]))
        for state in states:
            first = state - MAX_NODES
            links += [(first + i, place[state], place[node]) for i, node in enumerate(nodes)]
        reads = tuple(tuple(place[slot] for slot in fixed.get(slot_, ())) for slot_ in slots)
        return SlotGraph(slots, reads, self.absent_passes, tuple(links))


@lru_cache(maxsize=1 << 10)
def _vector(
    kind: OpKind, in_channels: int, out_channels: int, act: RecurrentAct = "none", first: int = 0
) -> OpSpec:
    return OpSpec(kind, in_channels, out_channels, 1, 1, act=act, mid_channels=first)


def build(config: Config, *, num_classes: int, in_channels: int = 1) -> SearchSpace:
    """Recurrent cells of NAS-Bench-NLP (2006.07116) of up to 14 nodes; records only.

    num_classes: words of the vocabulary. in_channels: not used, a step reads one token.
    """
    return SearchSpace("nasbench_nlp", RecipeCells(num_classes=num_classes, width=config.width))
