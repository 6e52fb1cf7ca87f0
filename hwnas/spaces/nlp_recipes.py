"""Recipes of NAS-Bench-NLP: recurrent cells as graphs, in one canonical form per cell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import permutations
from typing import Any

from hwnas.core.errors import UserError

__all__ = ["INPUTS", "MAX_NODES", "N_STATES", "OPS", "Cell", "read_recipe", "write_recipe"]

N_STATES = 3
MAX_NODES = 14
"""Maximum number of nodes: that of the largest of the recipes trained on WikiText-2."""
INPUTS = ("x", *(f"h_prev_{k}" for k in range(N_STATES)))
"""The token and the states of the step before. As a source, they have the numbers 0 to 3."""
OUTPUTS = tuple(f"h_new_{k}" for k in range(N_STATES))
OPS: Mapping[str, range] = {
    "linear": range(2, 4),
    "blend": range(3, 4),
    "elementwise_prod": range(2, 3),
    "elementwise_sum": range(2, 3),
    "activation_tanh": range(1, 2),
    "activation_sigm": range(1, 2),
    "activation_leaky_relu": range(1, 2),
}
"""Maps each operator of a node to the numbers of inputs that it can have."""
RANKS = {op: rank for rank, op in enumerate(OPS)}
FORM = '{"h_new_0": {"op": "linear", "input": ["x", "h_prev_0"]}}'
FIX = "correct the recipe, or remove it from the file"

Code = tuple[tuple[tuple[int, tuple[int, ...]], ...], tuple[int, ...]]
"""Rank of the operator and sources of every node, and the node of every state."""


@dataclass(frozen=True)
class Cell:
    """A recurrent cell: the operator and the sources of every node.

    nodes: sources are the numbers of `INPUTS`, and `len(INPUTS) + i` for node i. Only the order of
        those of `blend` matters: blend(z, a, b) = z * a + (1 - z) * b.
    states: the node that computes each state of the next step. State 0 is also the output.
    """

    nodes: tuple[tuple[str, tuple[int, ...]], ...]
    states: tuple[int, ...]

    def canonical(self) -> Cell:
        """The same cell with its nodes in an order that does not depend on the given order.

        Cells that are equal up to the order of their nodes, to the order of sources that does not
        matter, and to the numbers of the states 1 and 2, get the same canonical form.

        Raises:
            UserError: the cell has a cycle.
        """
        found = []
        for others in permutations(range(1, len(self.states))):
            order = (0, *others)
            moved = {1 + old: 1 + new for new, old in enumerate(order)}
            nodes = tuple((op, tuple(moved.get(s, s) for s in read)) for op, read in self.nodes)
            states = tuple(self.states[old] for old in order)
            found.append(_Ordering(replace(self, nodes=nodes, states=states)).best(()))
        nodes_of, states = min(found)
        ops = tuple(OPS)
        return Cell(tuple((ops[rank], sources) for rank, sources in nodes_of), states)


@dataclass(frozen=True)
class _Ordering:
    """Finds the canonical order of the nodes of a cell."""

    cell: Cell

    @cached_property
    def _readers(self) -> list[list[tuple[int, int]]]:
        """The readers of every node: (number of the input, reader). If order is free: input 0."""
        found: list[list[tuple[int, int]]] = [[] for _ in self.cell.nodes]
        for reader, (op, sources) in enumerate(self.cell.nodes):
            for port, source in enumerate(sources):
                if source >= len(INPUTS):
                    found[source - len(INPUTS)].append((port * (op == "blend"), reader))
        return found

    def best(self, placed: tuple[int, ...]) -> Code:
        """The smallest code of all orders that begin with the nodes `placed`.

        Nodes with equal keys are nearly always interchangeable. If the first order that begins with
        such a node has the best code so far, a symmetry of the cell maps one order to the other, so
        the further orders that begin with this node have no other codes.
        """
        if len(placed) == len(self.cell.nodes):
            return self._code(placed)
        first, *others = self._next(placed)
        best = self.best((*placed, first))
        for node in others:
            order = (*placed, node)
            while len(order) < len(self.cell.nodes):
                order = (*order, self._next(order)[0])
            if self._code(order) != best:
                best = min(best, self.best((*placed, node)))
        return best

    def _next(self, placed: tuple[int, ...]) -> list[int]:
        """The nodes with the smallest key among those whose sources are all placed."""
        number = {len(INPUTS) + node: len(INPUTS) + i for i, node in enumerate(placed)}
        number |= {i: i for i in range(len(INPUTS))}
        colours, keys = self._colours(placed), {}
        for node, (op, sources) in enumerate(self.cell.nodes):
            if node not in placed and all(source in number for source in sources):
                read = _in_order(op, [number[source] for source in sources])
                keys[node] = (max(read), RANKS[op], read, colours[node])
        if not keys:
            raise UserError(
                "the recipe has a cycle",
                expected="nodes that read the token, states of the step before, or other nodes"
                " that do not depend on them",
                found=f"{len(self.cell.nodes) - len(placed)} nodes that depend on themselves",
                fix=FIX,
            )
        return [node for node, key in keys.items() if key == min(keys.values())]

    def _colours(self, placed: tuple[int, ...]) -> list[int]:
        """A number per node that is equal for nodes that no path to or from them distinguishes.

        Colour refinement (Weisfeiler-Leman). Placed nodes, operators and states are distinguished.
        """
        signatures: list[Any] = [
            (placed.index(i) if i in placed else -1, RANKS[op], *self._states_of(i))
            for i, (op, _) in enumerate(self.cell.nodes)
        ]
        colours = _ranked(signatures)
        for _ in self.cell.nodes:
            of = [*range(-len(INPUTS), 0), *colours]
            refined = _ranked(
                [
                    (
                        colours[i],
                        _in_order(op, [of[source] for source in sources]),
                        sorted((port, colours[reader]) for port, reader in self._readers[i]),
                    )
                    for i, (op, sources) in enumerate(self.cell.nodes)
                ]
            )
            if refined == colours:
                break
            colours = refined
        return colours

    def _states_of(self, node: int) -> list[int]:
        return [k for k, source in enumerate(self.cell.states) if source == node]

    def _code(self, order: tuple[int, ...]) -> Code:
        number = {len(INPUTS) + node: len(INPUTS) + i for i, node in enumerate(order)}
        nodes = []
        for node in order:
            op, sources = self.cell.nodes[node]
            nodes.append((RANKS[op], _in_order(op, [number.get(s, s) for s in sources])))
        return tuple(nodes), tuple(order.index(node) for node in self.cell.states)


def _ranked(signatures: list[Any]) -> list[int]:
    """The rank of each signature among the different ones."""
    distinct: list[Any] = []
    for signature in sorted(signatures):
        if not distinct or signature != distinct[-1]:
            distinct.append(signature)
    return [distinct.index(signature) for signature in signatures]


def _in_order(op: str, sources: list[int]) -> tuple[int, ...]:
    """Sources in ascending order, unless their order matters."""
    return tuple(sources if op == "blend" else sorted(sources))


def read_recipe(recipe: Any, *, where: object) -> Cell:
    """The canonical cell of a recipe, which maps node -> {"op": ..., "input": [...]}.

    Nodes have any names. Those of `h_new_0`, `h_new_1` and `h_new_2` compute the next states.

    Raises:
        UserError: the recipe has another form, an unknown operator or input, a wrong number of
            inputs, a cycle, too many nodes, or a state that is read but not written.
    """
    if not isinstance(recipe, dict) or not recipe:
        raise _error("not a recipe", f"an object such as {FORM}", f"{recipe!r:.80}", where)
    if len(recipe) > MAX_NODES:
        most = f"at most {MAX_NODES} nodes"
        raise _error("the recipe has too many nodes", most, f"{len(recipe)} nodes", where)
    states = [name for name in OUTPUTS if name in recipe]
    if tuple(states) != OUTPUTS[: max(1, len(states))]:
        expected = "the node h_new_0, and h_new_1 if there is h_new_2"
        raise _error("the recipe lacks a state", expected, ", ".join(states) or "none", where)
    known = [*INPUTS[: 1 + len(states)], *recipe]
    if clash := [name for name in INPUTS if name in recipe]:
        raise _error("a node has the name of an input", "another name", clash[0], where)
    nodes = tuple(_node(name, node, known, where=where) for name, node in recipe.items())
    n_missing = N_STATES - len(states)  # inputs that the recipe lacks still have their numbers
    shifted = tuple(
        (op, tuple(s + n_missing * (s > len(states)) for s in sources)) for op, sources in nodes
    )
    names = list(recipe)
    cell = Cell(shifted, tuple(names.index(name) for name in states))
    try:
        return cell.canonical()
    except UserError as error:
        error.say_where(where)
        raise


def _node(name: str, node: Any, known: list[str], *, where: object) -> tuple[str, tuple[int, ...]]:
    """Operator and sources of a node, as positions in `known`."""
    place = f"{where}, node {name}"
    sources = node.get("input") if isinstance(node, dict) else None
    if not isinstance(sources, list):
        form = '{"op": "linear", "input": ["x", "h_prev_0"]}'
        raise _error("not a node of a recipe", form, f"{node!r:.80}", place)
    op = node.get("op")
    if not isinstance(op, str) or op not in OPS:
        raise _error("unknown operator", f"one of {', '.join(OPS)}", f"{op!r:.80}", place)
    if len(sources) not in OPS[op]:
        counts = " or ".join(map(str, OPS[op]))
        expected = f"{counts} input{'s' * (counts != '1')} of {op}"
        raise _error("wrong number of inputs", expected, f"{len(sources)} inputs", place)
    for source in sources:
        if source not in known:
            expected = f"one of {', '.join(known)}"
            raise _error("the node reads an unknown input", expected, f"{source!r:.80}", place)
    return op, tuple(known.index(source) for source in sources)


def write_recipe(cell: Cell) -> dict[str, Any]:
    """The recipe of a cell whose states are different nodes; inverse of `read_recipe`."""
    names = [f"node_{i}" for i in range(len(cell.nodes))]
    for k, node in enumerate(cell.states):
        names[node] = OUTPUTS[k]
    known = [*INPUTS, *names]
    return {
        name: {"op": op, "input": [known[source] for source in sources]}
        for name, (op, sources) in zip(names, cell.nodes, strict=True)
    }


def _error(message: str, expected: object, found: object, where: object) -> UserError:
    return UserError(message, expected=expected, found=found, where=where, fix=FIX)
