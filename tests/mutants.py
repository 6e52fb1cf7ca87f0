"""Mutation run: one small change of our code at a time, and which of them no test notices.

    python tests/mutants.py [--n 200] [--seed 0] [--only latency] [--limit 0.2]

Everything is imported once. A mutant is a forked process in which the code object of one function
is replaced; it runs the unit tests that import the module, and those of `ALSO`. What survives is
printed; the exit status is 1 if more than `--limit` of the mutants do, equivalent ones aside.
"""

from __future__ import annotations

import argparse
import ast
import copy
import functools
import importlib
import os
import random
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
AREAS = {
    "controller": "hwnas/controller/*.py",
    "latency": "hwnas/latency/*.py",
    "step": "hwnas/training/step.py",
    "stages": "hwnas/pipeline/stages/*.py",
    "measure": "hwnas/measure/*.py",
    "exporters": "hwnas/exporters/*.py",
}
SETTINGS = "tests/integration/test_settings_matter.py"
ALSO: dict[str, tuple[str, ...]] = {
    "hwnas/training/step.py": ("tests/unit/test_training_loop.py", f"{SETTINGS} -k train."),
    **{
        f"hwnas/pipeline/stages/{name}.py": (f"{SETTINGS} -k {section}",)
        for name, section in {
            "train": "(train. or supernet)",
            "label": "label.", "predictor": "predictor", "search": "search.",
            "finetune": "finetune.", "export": "export", "verify": "verify", "profile": "profile",
        }.items()
    },
}  # fmt: skip
"""Further tests of a module, beside the unit tests that import it."""

EQUIVALENT: dict[str, str] = {}
"""Mutants that compute the same, as they are printed without the line number, and why."""

TIMEOUT_S = 300
NO_TESTS = 5  # exit status of pytest
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
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line} {self.key}"

    @property
    def key(self) -> str:
        return f"{self.function}: {self.text}"


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


def nodes_of(tree: ast.Module) -> Iterator[tuple[str, ast.AST, ast.AST, str, int | None]]:
    """Nodes in bodies of functions: function, node, and where its parent holds it."""

    def inside(name: str, parent: ast.AST) -> Iterator[Any]:
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

    def outside(prefix: str, parent: Any) -> Iterator[Any]:
        for child in parent.body:
            if isinstance(child, ast.ClassDef):
                yield from outside(f"{prefix}{child.name}.", child)
            elif isinstance(child, ast.FunctionDef):
                yield from inside(f"{prefix}{child.name}", child)

    yield from outside("", tree)


def mutants_of(path: Path) -> list[Mutant]:
    file, found = str(path.relative_to(ROOT)), []
    for position, (function, node, *_) in enumerate(nodes_of(ast.parse(path.read_text()))):
        for kind, new in changed(node).items():
            text = f"{ast.unparse(node)} -> {ast.unparse(new)}"
            line = getattr(node, "lineno", 0)
            found.append(
                Mutant(file, function, position, kind, line, re.sub(r"\s+", " ", text)[:150])
            )
    return found


def drawn(n: int, seed: int, only: str | None) -> list[Mutant]:
    """Equal shares of every area, in random order."""
    areas = {name: glob for name, glob in AREAS.items() if only in (None, name)}
    stream, found = random.Random(seed), []
    for glob in areas.values():
        known = [mutant for path in sorted(ROOT.glob(glob)) for mutant in mutants_of(path)]
        found += stream.sample(known, min(-(-n // len(areas)), len(known)))
    stream.shuffle(found)
    return found[:n]


def tests_of(file: str) -> list[str]:
    """Unit tests that import the module, or its package where none does; then those of `ALSO`."""
    module = file.removesuffix(".py").replace("/", ".")
    package, _, name = module.rpartition(".")
    forms = rf"from {re.escape(module)} import|from {re.escape(package)} import .*\b{name}\b"
    found = [
        p for p in sorted(ROOT.glob("tests/unit/test_*.py")) if re.search(forms, p.read_text())
    ]
    if not found and file not in ALSO:
        found = [p for p in sorted(ROOT.glob("tests/unit/test_*.py")) if package in p.read_text()]
    return [str(p.relative_to(ROOT)) for p in found] + list(ALSO.get(file, ()))


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


def apply(file: str, function: str, change: Callable[[ast.Module], None]) -> None:
    """Replace the code of one function in this process."""
    module = importlib.import_module(file.removesuffix(".py").replace("/", "."))
    tree = ast.parse((ROOT / file).read_text())
    change(tree)
    code = compile(ast.fix_missing_locations(tree), str(ROOT / file), "exec", dont_inherit=True)
    target = _function(module, function)
    target.__code__ = _code(code, function, target.__code__.co_firstlineno)


def change_of(mutant: Mutant) -> Callable[[ast.Module], None]:
    def change(tree: ast.Module) -> None:
        for position, (_, node, parent, field, index) in enumerate(nodes_of(tree)):
            if position == mutant.position:
                new = ast.copy_location(changed(node)[mutant.kind], node)
                if index is None:
                    setattr(parent, field, new)
                else:
                    getattr(parent, field)[index] = new
                return

    return change


def is_noticed(
    file: str, function: str, change: Callable[[ast.Module], None], tests: list[str]
) -> bool:
    """Whether a test fails, or hangs, in a process with this change."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setsid()
            silent = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silent, 1)
            os.dup2(silent, 2)
            apply(file, function, change)
            import pytest

            options = ["-x", "-q", "-p", "no:cacheprovider", "-m", "not full"]
            plain = [one for one in tests if " -k " not in one]
            status = int(pytest.main([*plain, *options])) % NO_TESTS if plain else 0
            for one in tests:
                path, _, pattern = one.partition(" -k ")
                if pattern and not status:
                    status = int(pytest.main([path, "-k", pattern, *options])) % NO_TESTS
        finally:
            os._exit(status)
    end = time.monotonic() + TIMEOUT_S
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status != 0
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description="see the docstring")
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=AREAS)
    parser.add_argument("--limit", type=float, default=0.2)
    given = parser.parse_args()
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    for glob in AREAS.values():
        for path in ROOT.glob(glob):
            importlib.import_module(str(path.relative_to(ROOT))[:-3].replace("/", "."))
    n_run, survivors = 0, []
    sound: dict[str, bool] = {}
    for mutant in drawn(given.n, given.seed, given.only):
        if mutant.key in EQUIVALENT:
            continue
        file, tests = mutant.file, tests_of(mutant.file)
        if file not in sound:  # tests that fail anyway would notice everything
            sound[file] = not is_noticed(file, mutant.function, lambda tree: None, tests)
        if not sound[file]:
            print(f"not run: tests fail or are slow without a change: {mutant}", flush=True)
            continue
        n_run += 1
        noticed = is_noticed(file, mutant.function, change_of(mutant), tests)
        if not noticed:
            survivors.append(mutant)
        print(f"{n_run} {'noticed ' if noticed else 'SURVIVES'} {mutant}", flush=True)
    share = len(survivors) / max(n_run, 1)
    print(f"\n{len(survivors)} of {n_run} mutants survive ({share:.0%}):")
    print("\n".join(f"  {mutant}" for mutant in survivors))
    return int(share > given.limit)


if __name__ == "__main__":
    sys.exit(main())
