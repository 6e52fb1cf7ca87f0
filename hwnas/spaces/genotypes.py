"""The notation of DARTS: a `Genotype` names the operators and inputs of two cells."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping, Sequence
from typing import Any

from hwnas.core.errors import UserError

__all__ = [
    "CELLS",
    "N_INPUTS",
    "N_NODES",
    "Cell",
    "genotype_error",
    "genotype_parts",
    "read_genotype",
    "write_genotype",
]

CELLS = ("normal", "reduce")
N_INPUTS, N_NODES = 2, 4
CONCAT = list(range(N_INPUTS, N_INPUTS + N_NODES))
MOST_LISTED = 16  # numbers of a `range`, more than any cell has nodes
FORM = "Genotype(normal=[('sep_conv_3x3', 0), ...], normal_concat=[2, 3, 4, 5], reduce=..., ...)"

Cell = Mapping[tuple[int, int], str]
"""Maps edges (input, node) to operators. Inputs 0 and 1 are the two cells before; nodes: 2 to 5."""


def read_genotype(text: str, ops: Sequence[str]) -> dict[str, Cell] | None:
    """Reads the two cells of a genotype; None if the text is not a genotype.

    The text is a Python expression `Genotype(...)`, as the code of DARTS prints it, or a JSON
    object with the keys `normal` and `reduce`. Each of the two is a list of eight (operator,
    input), two per node, flat or nested by node.

    Raises:
        UserError: an operator that is not in `ops`, a wrong number of edges, an input that does not
            come before its node or that a node reads twice, or a node that is not in the output.
    """
    text = text.strip()
    known = ("normal", "normal_concat", "reduce", "reduce_concat")
    fields = genotype_parts(text, known, FORM)
    if fields is None:
        return None
    return {cell: _cell(cell, fields, ops, text) for cell in CELLS}


def write_genotype(cells: Mapping[str, Cell]) -> str:
    """Writes cells as `Genotype(normal=[...], ...)`; `read_genotype` reads it."""
    parts = []
    for name in CELLS:
        edges = sorted(cells[name].items(), key=lambda item: (item[0][1], item[0][0]))
        pairs = [(op, source) for (source, _), op in edges]
        parts += [f"{name}={pairs}", f"{name}_concat={CONCAT}"]
    return f"Genotype({', '.join(parts)})"


def genotype_parts(text: str, known: Sequence[str], form: str) -> dict[str, Any] | None:
    """Reads a genotype, and maps the names of its parts to their contents, which are not checked.

    Returns None if the text is not a genotype.

    known: names that parts can have. form: an example, for errors.

    Raises:
        UserError: the text cannot be read, or has another part.
    """
    if not text.startswith(("Genotype", "genotypes.Genotype", "{")):
        return None
    fields = _fields(text, form)
    for name in fields:
        if name not in known:
            names = f"{', '.join(known[:-1])} and {known[-1]}"
            raise genotype_error(
                f"unknown part {name!r} of a genotype", names, sorted(fields), text
            )
    return fields


def _fields(text: str, form: str) -> dict[str, Any]:
    if text.startswith("{"):
        try:
            found = json.loads(text)
        except ValueError as error:
            raise genotype_error("the genotype is not JSON", form, error, text) from error
        return dict(found)
    try:
        call = ast.parse(text, mode="eval").body
        if not isinstance(call, ast.Call) or call.args or None in [k.arg for k in call.keywords]:
            raise ValueError("not a call with named arguments")
        return {str(k.arg): _literal(k.value) for k in call.keywords}
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        raise genotype_error("cannot read the genotype", form, str(error)[:80], text) from error


def _literal(node: ast.expr) -> Any:
    """A literal, or `range(...)` of literals. Nothing is executed."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "range":
        ends = [ast.literal_eval(argument) for argument in node.args]
        found = range(*ends)
        return list(found[:MOST_LISTED])
    return ast.literal_eval(node)


def _cell(cell: str, fields: Mapping[str, Any], ops: Sequence[str], text: str) -> Cell:
    pairs = _pairs(cell, fields.get(cell), text)
    concat = fields.get(f"{cell}_concat", CONCAT)
    if not isinstance(concat, list | tuple) or sorted(map(str, concat)) != [*map(str, CONCAT)]:
        message = f"the output of the {cell} cell must concatenate all nodes"
        raise genotype_error(message, CONCAT, concat, text)
    found: dict[tuple[int, int], str] = {}
    for position, (op, source) in enumerate(pairs):
        node = N_INPUTS + position // 2
        place = f"node {node} of the {cell} cell"
        if op not in ops:
            message = f"{place} has an operator that is not in the space"
            raise genotype_error(message, f"one of {', '.join(ops)}", op, text)
        if type(source) is not int or not 0 <= source < node:
            raise genotype_error(
                f"{place} has an invalid input", f"an integer from 0 to {node - 1}", source, text
            )
        if (source, node) in found:
            message, both = (
                f"{place} reads input {source} twice",
                pairs[position - 1 : position + 1],
            )
            raise genotype_error(message, "two different inputs", both, text)
        found[source, node] = op
    return found


def _pairs(cell: str, given: Any, text: str) -> list[tuple[Any, Any]]:
    """The eight (operator, input) of a cell, given one after the other or in pairs per node."""
    if given is None:
        raise genotype_error(f"the genotype has no {cell} cell", FORM, "none", text)
    items = list(given) if isinstance(given, list | tuple) else []
    if items and all(_is_nested(item) for item in items):
        if bad := [i for i, item in enumerate(items) if len(item) != 2]:
            message = f"node {N_INPUTS + bad[0]} of the {cell} cell has a wrong number of edges"
            raise genotype_error(message, 2, len(items[bad[0]]), text)
        items = [pair for item in items for pair in item]
    if not items or not all(isinstance(i, list | tuple) and len(i) == 2 for i in items):
        message = f"the {cell} cell is not a list of edges"
        raise genotype_error(message, "('sep_conv_3x3', 0), ...", str(given)[:60], text)
    if len(items) != 2 * N_NODES:
        message = f"the {cell} cell has a wrong number of edges"
        raise genotype_error(message, f"{2 * N_NODES}, two per node", len(items), text)
    return [(op, source) for op, source in items]


def _is_nested(item: Any) -> bool:
    """Whether an item is the list of the edges of one node."""
    return isinstance(item, list | tuple) and all(isinstance(pair, list | tuple) for pair in item)


def genotype_error(message: str, expected: object, found: object, text: str) -> UserError:
    """The error for a genotype that cannot be used."""
    return UserError(message, expected=expected, found=found, where=text[:80])
