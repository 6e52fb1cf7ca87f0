"""The runtimes that the device kit can time with: its `run_NAME.py` files, read, not imported."""

from __future__ import annotations

import ast
import importlib.util
import sys
from pathlib import Path

from hwnas.core.registry import Variant
from hwnas.core.resources import resource

__all__ = ["describe_runtime", "runtime_names"]


def runtime_names() -> tuple[str, ...]:
    """Names of all runtimes, sorted."""
    return tuple(sorted(path.stem[4:] for path in resource("export").glob("run_*.py")))


def describe_runtime(name: str) -> Variant:
    """What it is, and what this machine lacks for it (a device needs it where the device is)."""
    tree = ast.parse(resource("export", f"run_{name}.py").read_text(encoding="utf-8"))
    kit = {path.stem for path in Path(resource("export")).glob("*.py")}
    needed: set[str] = set()
    install = None
    for node in tree.body:
        if isinstance(node, ast.Import):
            needed |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            needed.add(node.module.split(".")[0])
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "INSTALL":
            install = str(ast.literal_eval(node.value))
    missing = tuple(
        package
        for package in sorted(needed - set(sys.stdlib_module_names) - kit)
        if importlib.util.find_spec(package) is None
    )
    summary = (ast.get_docstring(tree) or "").split("\n")[0]
    return Variant(name, summary, missing, install if missing else None)
