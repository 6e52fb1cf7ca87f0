"""Small changes of our code (mutants), and how one is made in this process."""

from __future__ import annotations

import ast
import builtins
import copy
import functools
import importlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

COMPARISONS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
OPERATORS = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}  # fmt: skip
UNTESTED_CALLS = ("log.", "progress", "warnings.", "show(")


@dataclass(frozen=True)
class Mutant:
    """One change: `change` turns the node at `position` of the module's walk into another."""

    file: str
    function: str
    position: int
    kind: str
    line: int
    statement: int  # first line of the statement
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line} {self.function}: {self.text}"

    @property
    def key(self) -> str:
        """What stays when lines move."""
        return f"{self.file} {self.function}: {self.text}"


def is_tested_call(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and not ast.unparse(node).startswith(UNTESTED_CALLS)


def changed(node: ast.AST) -> dict[str, ast.AST]:
    """Changes of a node, by kind."""
    found: dict[str, ast.AST] = {}
    new: Any = copy.deepcopy(node)
    if isinstance(new, ast.Compare) and type(new.ops[0]) in COMPARISONS:
        new.ops[0] = COMPARISONS[type(new.ops[0])]()
        found["comparison"] = new
    elif isinstance(new, ast.BinOp) and type(new.op) in OPERATORS:
        new.op = OPERATORS[type(new.op)]()
        found["operator"] = new
    elif isinstance(new, ast.BoolOp):
        new.op = ast.Or() if isinstance(new.op, ast.And) else ast.And()
        found["logic"] = new
    elif isinstance(new, ast.UnaryOp) and isinstance(new.op, ast.Not):
        found["logic"] = new.operand
    elif isinstance(new, ast.Constant) and isinstance(new.value, bool):
        new.value = not new.value
        found["constant"] = new
    elif isinstance(new, ast.Constant) and isinstance(new.value, (int, float)):
        new.value += 1
        found["constant"] = new
    elif isinstance(new, ast.Return) and new.value is not None:
        if not (isinstance(new.value, ast.Constant) and new.value.value is None):
            new.value = ast.Constant(None)
            found["nothing returned"] = new
    elif isinstance(new, ast.Expr) and is_tested_call(new.value):
        found["call left out"] = ast.Pass()
    return found


Place = tuple[str, ast.AST, ast.AST, str, int | None]
"""Function, node, and where its parent holds it."""


def nodes_of(tree: ast.Module) -> Iterator[Place]:
    """Nodes in bodies of functions."""

    def inside(name: str, parent: ast.AST) -> Iterator[Place]:
        for field, value in ast.iter_fields(parent):
            is_head = field in ("decorator_list", "returns", "args", "annotation")
            if is_head and not isinstance(parent, ast.Call):
                continue
            children = value if isinstance(value, list) else [value]
            for index, child in enumerate(children):
                if isinstance(child, (ast.JoinedStr, ast.Raise)) or not isinstance(child, ast.AST):
                    continue
                yield name, child, parent, field, index if isinstance(value, list) else None
                yield from inside(name, child)

    for name, function in functions_of(tree):
        yield from inside(name, function)


def functions_of(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef]]:
    """Functions and methods of a module, by qualified name."""

    def within(prefix: str, parent: Any) -> Iterator[tuple[str, ast.FunctionDef]]:
        for child in parent.body:
            if isinstance(child, ast.ClassDef):
                yield from within(f"{prefix}{child.name}.", child)
            elif isinstance(child, ast.FunctionDef):
                yield f"{prefix}{child.name}", child

    yield from within("", tree)


def _put(parent: ast.AST, field: str, index: int | None, new: ast.AST) -> None:
    if index is None:
        setattr(parent, field, new)
    else:
        getattr(parent, field)[index] = new


def _text(place: Place, new: ast.AST) -> str:
    """Before and after; of a constant in an expression, the expression."""
    _, old, parent, field, index = place
    if isinstance(old, ast.Constant) and isinstance(parent, ast.expr):
        whole = copy.deepcopy(parent)
        _put(whole, field, index, new)
        old, new = parent, whole
    return re.sub(r"\s+", " ", f"{ast.unparse(old)} -> {ast.unparse(new)}")[:150]


def mutants_of(path: Path) -> list[Mutant]:
    file, statement, n_same = str(path.relative_to(ROOT)), 0, Counter[str]()
    found = []
    for position, place in enumerate(nodes_of(ast.parse(path.read_text()))):
        function, node, *_ = place
        if isinstance(node, ast.stmt):
            statement = node.lineno
        for kind, new in changed(node).items():
            text = _text(place, new)
            n_same[f"{function} {text}"] += 1
            if (n := n_same[f"{function} {text}"]) > 1:
                text += f" (no. {n})"
            line = getattr(node, "lineno", 0)
            found.append(Mutant(file, function, position, kind, line, statement, text))
    return found


def _function(module: Any, path: str) -> FunctionType:
    """The function object of a qualified name, taken out of what wraps it."""
    *parents, name = path.split(".")
    owner = functools.reduce(getattr, parents, module)
    found = vars(owner)[name]
    if isinstance(found, property):
        found = found.fget
    if isinstance(found, functools.cached_property):
        found = found.func
    found = getattr(found, "__func__", found)
    while hasattr(found, "__wrapped__"):
        found = found.__wrapped__
    assert isinstance(found, FunctionType), path
    return found


def _code(module: CodeType, path: str, line: int) -> CodeType:
    """The code of a function in that of its module, by name and first line."""
    found = module
    for name in path.split("."):
        inner = [c for c in found.co_consts if isinstance(c, CodeType) and c.co_name == name]
        found = next((c for c in inner if c.co_firstlineno == line), inner[0])
    return found


def module_name(file: str) -> str:
    return file.removesuffix(".py").replace("/", ".")


def _replace(file: str, tree: ast.Module, functions: Iterable[str]) -> None:
    """Replace the code of functions, in this process, by that of a changed tree."""
    code = compile(ast.fix_missing_locations(tree), str(ROOT / file), "exec", dont_inherit=True)
    for function in functions:
        target = _function(importlib.import_module(module_name(file)), function)
        target.__code__ = _code(code, function, target.__code__.co_firstlineno)


def apply(mutant: Mutant) -> None:
    tree = ast.parse((ROOT / mutant.file).read_text())
    _, node, parent, field, index = list(nodes_of(tree))[mutant.position]
    _put(parent, field, index, ast.copy_location(changed(node)[mutant.kind], node))
    _replace(mutant.file, tree, [mutant.function])


def trace(file: str, hits: set[str]) -> None:
    """Let every statement of a module add `file:line` to `hits` before it runs, in this process."""
    tree = ast.parse((ROOT / file).read_text())
    vars(builtins)["_hit"] = hits.add
    for _, function in functions_of(tree):
        for parent in list(ast.walk(function)):
            for block in ("body", "orelse", "finalbody"):
                if isinstance(old := getattr(parent, block, None), list):
                    new = [(_call(f"{file}:{one.lineno}", one), one) for one in old]
                    setattr(parent, block, [one for pair in new for one in pair])
    _replace(file, tree, [name for name, _ in functions_of(tree)])


def _call(place: str, statement: ast.stmt) -> ast.stmt:
    return ast.copy_location(ast.parse(f"_hit({place!r})").body[0], statement)
