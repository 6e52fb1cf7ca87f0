"""The runtimes that the device kit supports, read from `run_NAME.py` without importing it."""

from __future__ import annotations

import ast
import importlib.util
import sys
from pathlib import Path

from hwnas.core.registry import Variant
from hwnas.core.resources import resource

__all__ = ["describe_runtime", "install_line", "runtime_names", "runtime_packages"]


def runtime_names() -> tuple[str, ...]:
    """Sorted names of all runtimes."""
    return tuple(sorted(path.stem[4:] for path in resource("export").glob("run_*.py")))


def describe_runtime(name: str) -> Variant:
    """Describes a runtime. `missing` are the required packages that this machine lacks.

    The packages are needed on the device only.
    """
    missing = tuple(p for p in runtime_packages(name) if importlib.util.find_spec(p) is None)
    summary = (ast.get_docstring(_parsed(name)) or "").split("\n")[0]
    return Variant(name, summary, missing, install_line(name) if missing else None)


def install_line(name: str) -> str:
    """The command that installs the requirements of a runtime, for the interpreter `python`."""
    for node in _parsed(name).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "INSTALL":
            return str(ast.literal_eval(node.value))
    raise ValueError(f"run_{name}.py has no INSTALL")  # tests check every file of the kit


def runtime_packages(name: str) -> tuple[str, ...]:
    """Names of the packages that a runtime needs: all that its file imports, sorted.

    Modules of the standard library and of the kit are left out.
    """
    kit = {path.stem for path in Path(resource("export")).glob("*.py")}
    needed: set[str] = set()
    for node in _parsed(name).body:
        if isinstance(node, ast.Import):
            needed |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            needed.add(node.module.split(".")[0])
    return tuple(sorted(needed - set(sys.stdlib_module_names) - kit))


def _parsed(name: str) -> ast.Module:
    return ast.parse(resource("export", f"run_{name}.py").read_text(encoding="utf-8"))
