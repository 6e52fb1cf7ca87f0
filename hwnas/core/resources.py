"""Finds the files that ship with hwnas (configs, latency tables, device kit)."""

from __future__ import annotations

import importlib.util
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

from hwnas.core.errors import UserError

__all__ = ["SHIPPED_TABLES", "kit_module", "resource", "resource_files", "resource_names"]

SHIPPED_TABLES = "latency_tables"
"""Folder of the shipped latency tables."""

_PACKAGE = Path(__file__).resolve().parent.parent
_ROOTS = (_PACKAGE / "_data", _PACKAGE.parent)  # an installed wheel; a checkout or editable install


def resource(*parts: str) -> Path:
    """Path of a shipped file or folder, e.g. `resource("export", "bench.py")`.

    Raises:
        UserError: the file is missing from the installation.
    """
    for root in _ROOTS:
        path = root.joinpath(*parts)
        if path.exists():
            return path
    raise UserError(
        "a file that ships with hwnas is missing",
        expected=f"the file or folder {'/'.join(parts)}",
        where=" or ".join(str(root) for root in _ROOTS),
        fix="reinstall hwnas",
    )


@cache
def kit_module(name: str) -> ModuleType:
    """A module of the device kit, loaded by path because the kit is not part of the package."""
    path = resource("export", f"{name}.py")
    spec = importlib.util.spec_from_file_location(f"hwnas_kit_{name}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
    return module


def resource_names(folder: str, suffix: str) -> tuple[str, ...]:
    """Names without `suffix` of the files with this suffix in a shipped folder, sorted."""
    return tuple(resource_files(folder, suffix))


def resource_files(folder: str, suffix: str) -> dict[str, Path]:
    """The files with `suffix` in a shipped folder, by name without the suffix, sorted."""
    return dict(sorted((path.stem, path) for path in resource(folder).glob(f"*{suffix}")))
