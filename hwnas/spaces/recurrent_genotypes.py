"""The notation of recurrent cells of DARTS: a `Genotype` lists activation and input per node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hwnas.spaces.genotypes import genotype_error, genotype_parts

__all__ = ["ACTIVATIONS", "N_STATES", "read_recurrent", "write_recurrent"]

ACTIVATIONS = ("identity", "relu", "sigmoid", "tanh")
"""Activations from cheap to expensive."""
N_STATES = 8
CONCAT = list(range(1, N_STATES + 1))
FORM = "Genotype(recurrent=[('relu', 0), ('tanh', 1), ...], concat=range(1, 9))"


def read_recurrent(text: str) -> tuple[tuple[str, int], ...] | None:
    """Reads activation and input of the eight nodes; None if the text is not a genotype.

    The text is a Python expression `Genotype(...)`, as the code of DARTS prints it, or a JSON
    object with the key `recurrent`. Input 0 is the value made from token and state, and input i is
    node i.

    Raises:
        UserError: an unknown activation, a wrong number of nodes, an input that does not come
            before its node, or a node that is not in the output.
    """
    text = text.strip()
    parts = genotype_parts(text, ("recurrent", "concat"), FORM)
    if parts is None:
        return None
    nodes, concat = parts.get("recurrent"), parts.get("concat", CONCAT)
    if not isinstance(nodes, list | tuple) or not all(
        isinstance(node, list | tuple) and len(node) == 2 for node in nodes
    ):
        message = "the genotype has no list of (activation, input) for each node"
        raise genotype_error(message, FORM, str(nodes)[:60], text)
    if len(nodes) != N_STATES:
        raise genotype_error(
            "the recurrent cell has a wrong number of nodes", N_STATES, len(nodes), text
        )
    if not isinstance(concat, list | tuple) or sorted(map(str, concat)) != sorted(map(str, CONCAT)):
        raise genotype_error("the output must be the mean of all nodes", CONCAT, concat, text)
    return tuple(_node(i, *node, text=text) for i, node in enumerate(nodes, start=1))


def _node(number: int, act: Any, source: Any, *, text: str) -> tuple[str, int]:
    place = f"node {number} of the recurrent cell"
    if act not in ACTIVATIONS:
        known = f"one of {', '.join(ACTIVATIONS)}"
        raise genotype_error(f"{place} has an unknown activation", known, act, text)
    if type(source) is not int or not 0 <= source < number:
        known = f"an integer from 0 to {number - 1}"
        raise genotype_error(f"{place} has an invalid input", known, source, text)
    return act, source


def write_recurrent(nodes: Sequence[tuple[str, int]]) -> str:
    """Writes nodes as `Genotype(recurrent=[...], concat=[...])`; `read_recurrent` reads it."""
    return f"Genotype(recurrent={list(nodes)}, concat={CONCAT})"
