"""Variants of other packages, found by entry points and read without importing them.

A package adds a variant by an entry point of the group `hwnas.PLURAL`. The name of the entry point
is the name of the variant, and its value is a module:

    [project.entry-points."hwnas.proxies"]
    depth = "my_package.depth"
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import sys
from collections import defaultdict
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import distributions
from types import ModuleType
from typing import Any

from pydantic import BaseModel

__all__ = ["Facts", "Place", "entries", "facts_of", "faults", "locate"]


@dataclass(frozen=True)
class Place:
    """Module of a variant. `distribution`: name and version; None for variants of hwnas itself."""

    name: str
    module: str
    distribution: str | None = None

    @property
    def package(self) -> str:
        """Name of the distribution."""
        return (self.distribution or "hwnas").split(" ")[0]


@dataclass(frozen=True)
class Facts:
    """Facts about a module, read from its source without importing it."""

    summary: str
    requires: tuple[str, ...]
    extra: str | None

    @property
    def missing(self) -> tuple[str, ...]:
        """Required packages that are not installed."""
        return tuple(name for name in self.requires if locate(name) is None)


def entries(group: str) -> tuple[Place, ...]:
    """The variants that installed packages declare for `group`."""
    return _entries(tuple(sys.path)).get(group, ())


@lru_cache(maxsize=4)
def _entries(path: tuple[str, ...]) -> dict[str, tuple[Place, ...]]:
    """Entry points by group. Damaged packages are skipped; of two copies, the first one is used."""
    found: dict[str, list[Place]] = defaultdict(list)
    seen: set[str] = set()
    for distribution in distributions(path=list(path)):
        try:
            name, points = distribution.metadata["Name"], list(distribution.entry_points)
            label = f"{name} {distribution.version}"
        except Exception:  # an interrupted installation can leave any metadata
            continue
        if not name or name in seen:
            continue
        seen.add(name)
        for point in points:
            if point.group.startswith("hwnas."):
                found[point.group].append(Place(point.name, point.value, label))
    return {group: tuple(places) for group, places in found.items()}


def locate(module: str) -> ModuleSpec | None:
    """The spec of a module; unlike `importlib.util.find_spec` it does not import its parents."""
    first, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(first)
    except (ImportError, ValueError):
        return None
    path = first
    for part in rest:
        if spec is None:
            return None
        path = f"{path}.{part}"
        spec = PathFinder.find_spec(path, spec.submodule_search_locations or [])
    return spec


def facts_of(module: str) -> Facts:
    """Summary and requirements: the docstring's first line, and the literals REQUIRES and EXTRA.

    Raises:
        ValueError: there is no such module, or its source cannot be parsed; gives the reason.
    """
    spec = locate(module)
    source = getattr(spec.loader, "get_source", None) if spec is not None else None
    if spec is None or source is None:
        raise ValueError(f"there is no module {module}")
    try:
        text = source(module) or ""
    except (SyntaxError, ImportError) as error:
        raise ValueError(f"{module} cannot be read: {error}") from error
    return _facts(module, text)


@cache  # a validated configuration calls this dozens of times
def _facts(module: str, source: str) -> Facts:
    try:
        tree = ast.parse(source)
        literals = {
            node.targets[0].id: ast.literal_eval(node.value)
            for node in tree.body
            if isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and node.targets[0].id in ("REQUIRES", "EXTRA")
        }
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"{module} cannot be read: {error}") from error
    summary = (ast.get_docstring(tree) or "").split("\n")[0]
    requires, extra = literals.get("REQUIRES", ()), literals.get("EXTRA")
    if not isinstance(requires, (tuple, list)) or not all(isinstance(r, str) for r in requires):
        raise ValueError(f"{module}: REQUIRES must be a tuple of names, found {requires!r}")
    if extra is not None and not isinstance(extra, str):
        raise ValueError(f"{module}: EXTRA must be a name, found {extra!r}")
    return Facts(summary, tuple(requires), extra)


def faults(module: ModuleType, contract: type[Any], name: str) -> list[str]:
    """Members of the Protocol `contract` that a module lacks or defines wrongly.

    Every member must exist, functions must accept the arguments of the Protocol, and `Config` must
    be a model that has the name of the variant and refuses unknown keys.
    """
    found = []
    for member, declared in _members(contract).items():
        value = getattr(module, member, None)
        if value is None:
            found.append(f"no `{member}`")
        elif member == "Config":
            found += _config_faults(value, name)
        elif inspect.isfunction(declared):
            signature = inspect.signature(declared)
            arguments = [p for p in signature.parameters.values() if p.name != "self"]
            if not callable(value) or not _takes(value, arguments):
                words = ", ".join(p.name for p in arguments)
                found.append(f"`{member}` does not take ({words})")
    return found


def _members(contract: type[Any]) -> dict[str, Any]:
    """Public members of a Protocol and its bases."""
    own = [base for base in contract.__mro__ if base.__module__ not in ("builtins", "typing")]
    return {
        name: member
        for base in reversed(own)
        for name, member in vars(base).items()
        if not name.startswith("_")
    }


def _takes(function: Any, arguments: list[inspect.Parameter]) -> bool:
    by_name = [p.name for p in arguments if p.kind is p.KEYWORD_ONLY]
    n_positional = len(arguments) - len(by_name)
    try:
        inspect.signature(function).bind(*[None] * n_positional, **dict.fromkeys(by_name))
    except (TypeError, ValueError):
        return False
    return True


def _config_faults(config: Any, name: str) -> list[str]:
    if not (isinstance(config, type) and issubclass(config, BaseModel)):
        return ["`Config` is no pydantic model"]
    field = config.model_fields.get("name")
    found = []
    if field is None or field.default != name:
        found.append(f'`Config` has no `name: Literal["{name}"] = "{name}"`')
    if config.model_config.get("extra") != "forbid":
        found.append("`Config` accepts unknown keys (derive it from hwnas.core.config.StrictModel)")
    return found
