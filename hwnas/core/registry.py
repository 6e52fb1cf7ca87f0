"""Registries: a variant's name is its module's file name; a module is imported only when chosen."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import pkgutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType

from hwnas.core.errors import UserError, did_you_mean

__all__ = ["Registry", "Variant"]


@dataclass(frozen=True)
class Variant:
    """One registered module. `missing`: optional packages that it needs and that are absent."""

    name: str
    summary: str
    missing: tuple[str, ...]
    install: str | None


@dataclass(frozen=True)
class Registry:
    """The variants of one kind: every public module of `package` that is not in `infrastructure`.

    A variant module states what it needs in module-level literals, read without importing it:
    its docstring (first line = summary), and optionally `REQUIRES = ("package", ...)` together with
    `EXTRA = "name"`, the extra of hwnas that installs them.
    """

    kind: str
    package: str
    infrastructure: frozenset[str] = frozenset()

    @property
    def plural(self) -> str:
        """What `hwnas list` calls the kind."""
        return f"{self.kind[:-1]}ies" if self.kind.endswith("y") else f"{self.kind}s"

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Known names, sorted."""
        spec = importlib.util.find_spec(self.package)
        if spec is None or spec.submodule_search_locations is None:
            raise ImportError(f"registry package {self.package} is missing")
        found = [
            module.name
            for module in pkgutil.iter_modules(spec.submodule_search_locations)
            if not module.name.startswith("_") and module.name not in self.infrastructure
        ]
        duplicates = sorted({name for name in found if found.count(name) > 1})
        if duplicates:
            raise UserError(f"duplicate {self.kind} names", found=duplicates, where=self.package)
        return tuple(sorted(found))

    def describe(self, name: str) -> Variant:
        """Facts about one variant, read from its source without importing it."""
        self._check(name)
        spec = importlib.util.find_spec(f"{self.package}.{name}")
        assert spec is not None and spec.origin is not None
        tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
        literals = {
            node.targets[0].id: ast.literal_eval(node.value)
            for node in tree.body
            if isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and node.targets[0].id in ("REQUIRES", "EXTRA")
        }
        missing = tuple(
            package
            for package in literals.get("REQUIRES", ())
            if importlib.util.find_spec(package) is None
        )
        install = f"pip install 'hwnas[{literals['EXTRA']}]'" if missing else None
        summary = (ast.get_docstring(tree) or "").split("\n")[0]
        return Variant(name, summary, missing, install)

    def load(self, name: str) -> ModuleType:
        """Import and return the variant's module.

        Raises:
            UserError: the name is unknown (lists the known ones) or an optional package is missing.
        """
        variant = self.describe(name)
        if variant.missing:
            raise UserError(
                f"{self.kind} {name!r} needs a package that is not installed",
                found=f"missing {', '.join(variant.missing)}",
                fix=variant.install,
            )
        return importlib.import_module(f"{self.package}.{name}")

    def _check(self, name: str) -> None:
        if name not in self.names:
            raise UserError(
                f"unknown {self.kind} {name!r}",
                expected=f"one of {', '.join(self.names)}",
                found=repr(name),
                fix=did_you_mean(name, self.names, otherwise=f"see `hwnas list {self.plural}`"),
            )
