"""Registries: the variants of one kind, in hwnas and other packages, imported when chosen."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import pkgutil
import sys
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType
from typing import Any, Generic, Protocol, TypeVar, cast

from pydantic import BaseModel

from hwnas.core.command import command_line
from hwnas.core.errors import UserError, did_you_mean
from hwnas.core.plugins import Place, entries, facts_of, faults

__all__ = ["Registry", "Variant", "VariantModule"]

log = logging.getLogger(__name__)

M = TypeVar("M")


class VariantModule(Protocol):
    """A variant module that has settings. Each kind of variant adds its own `build`."""

    @property
    def Config(self) -> type[BaseModel]:
        """The configuration section: a `StrictModel` with `name: Literal["x"] = "x"`."""
        ...


@dataclass(frozen=True)
class Variant:
    """One registered module.

    missing: required optional packages that are not installed; `install` is the command for them.
    package: the distribution that contains it.
    problem: why it cannot be chosen; empty if it can.
    """

    name: str
    summary: str
    missing: tuple[str, ...] = ()
    install: str | None = None
    package: str = "hwnas"
    problem: str = ""

    @property
    def available(self) -> str:
        """`yes`, or the reason and remedy, for a table."""
        return f"no: {self.problem}" if self.problem else self.install or "yes"


@dataclass(frozen=True)
class Registry(Generic[M]):
    """The variants of one kind; `M` is the Protocol of their modules.

    Every public module of `package` that is not in `infrastructure` is a variant, named after its
    file. So is every entry point of the group `hwnas.PLURAL` of an installed package
    (`core.plugins`). A variant declares its properties in its docstring (first line = summary) and
    in optional module-level literals: `REQUIRES = ("package", ...)` with `EXTRA = "name"`, the
    extra of its distribution that installs them. These are read without importing the module.
    Modules of other packages are checked against `contract` (= M) when they are loaded.
    """

    kind: str
    package: str
    infrastructure: frozenset[str] = frozenset()
    contract: type[Any] = object

    @property
    def plural(self) -> str:
        """Plural of the kind, as in `hwnas list`."""
        return f"{self.kind[:-1]}ies" if self.kind.endswith("y") else f"{self.kind}s"

    @property
    def names(self) -> tuple[str, ...]:
        """Sorted names of the variants that can be chosen."""
        return tuple(sorted(self._places))

    @property
    def problems(self) -> tuple[Variant, ...]:
        """Variants of other packages that cannot be chosen, with the reason."""
        return self._outside[1]

    def describe(self, name: str) -> Variant:
        """Facts about one variant, read from its source without importing it.

        Raises:
            UserError: unknown name (lists the known ones), or an error in its package.
        """
        self._check(name)
        place = self._places[name]
        facts = facts_of(place.module)
        missing, install = facts.missing, None
        if missing and facts.extra is not None:
            install = f"pip install '{place.package}[{facts.extra}]'"
        elif missing:
            install = f"pip install {' '.join(missing)}"
        return Variant(name, facts.summary, missing, install, place.distribution or "hwnas")

    def load(self, name: str) -> M:
        """Imports and returns the module of the variant.

        Raises:
            UserError: as in `describe`; or an optional package is missing; or the module of another
                package cannot be imported or does not conform to the contract.
        """
        self.require(name)
        return self.declaration(name)

    def require(self, name: str) -> None:
        """Refuses a variant that lacks an optional package.

        Raises:
            UserError: as in `describe`, or a package is missing.
        """
        variant = self.describe(name)
        if variant.missing:
            raise UserError(
                f"{self.kind} {name!r} needs a package that is not installed",
                expected=f"the installed package {', '.join(variant.missing)}",
                found=f"missing {', '.join(variant.missing)}",
                where=f"the Python environment {sys.prefix}",
                fix=variant.install,
            )

    def declaration(self, name: str) -> M:
        """Imports a variant to read its declarations; its optional packages can be missing.

        Raises:
            UserError: as in `load`, except for a missing package.
        """
        self._check(name)
        self._warn_of_rivals(name)
        place = self._places[name]
        if place.distribution is None:
            return cast(M, importlib.import_module(place.module))
        return cast(M, self._import_outside(place))

    def _warn_of_rivals(self, name: str) -> None:
        """Warns once about variants of other packages whose names hwnas uses already."""
        for rival in self.problems:
            if rival.name == name and rival not in self._warned:
                self._warned.add(rival)
                log.warning(
                    "%s %r of %s is ignored: %s", self.kind, name, rival.package, rival.problem
                )

    @cached_property
    def _warned(self) -> set[Variant]:
        return set()

    def _import_outside(self, place: Place) -> ModuleType:
        subject = f"{self.kind} {place.name!r} of {place.distribution}"
        fix = f"update {place.package}, or uninstall it"
        try:
            module = importlib.import_module(place.module)
        except (Exception, SystemExit) as error:  # foreign code can raise any exception
            self.require(place.name)  # a package that it declares may be why
            raise UserError(
                f"{subject} cannot be imported",
                found=f"{type(error).__name__}: {error}",
                where=place.module,
                fix=fix,
            ) from error
        if found := faults(module, self.contract, place.name):
            raise UserError(
                f"{subject} is not a {self.kind} module",
                expected=f"the members of hwnas.interfaces.{self.contract.__name__}",
                found="; ".join(found),
                where=module.__file__,
                fix=fix,
            )
        return module

    @cached_property
    def _places(self) -> dict[str, Place]:
        return self._builtin | self._outside[0]

    @cached_property
    def _builtin(self) -> dict[str, Place]:
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
            names = ", ".join(duplicates)
            raise UserError(
                f"duplicate {self.kind} names",
                expected="one module for each name",
                found=f"several modules for {names}",
                where=self.package,
                fix="reinstall hwnas",
            )
        return {name: Place(name, f"{self.package}.{name}") for name in found}

    @cached_property
    def _outside(self) -> tuple[dict[str, Place], tuple[Variant, ...]]:
        """Variants of other packages: those that can be chosen, and those that cannot."""
        places = entries(f"hwnas.{self.plural}")
        count = Counter(place.name for place in places)
        good, bad = {}, []
        for place in places:
            problem = ""
            if place.name in self._builtin:
                problem = "the name is taken by hwnas itself; rename the entry point"
            elif count[place.name] > 1:
                rivals = [p.package for p in places if p.name == place.name]
                problem = f"claimed by {' and '.join(rivals)}; uninstall all but one"
            else:
                try:
                    facts_of(place.module)
                except ValueError as error:
                    problem = str(error)
            if problem:
                bad.append(
                    Variant(place.name, "", package=place.distribution or "", problem=problem)
                )
            else:
                good[place.name] = place
        return good, tuple(bad)

    def _check(self, name: Any) -> None:
        if isinstance(name, str) and name in self._places:
            return
        for variant in self.problems:
            if variant.name == name:
                raise UserError(
                    f"{self.kind} {name!r} of {variant.package} cannot be used",
                    found=variant.problem,
                    where=f"entry points `hwnas.{self.plural}` of {variant.package}",
                    fix=f"update or uninstall {variant.package.split(' ')[0]}",
                )
        raise UserError(
            f"unknown {self.kind} {name!r}",
            expected=f"one of {', '.join(self.names)}",
            found=repr(name),
            fix=did_you_mean(
                str(name), self.names, otherwise=f"see `{command_line('list', self.plural)}`"
            ),
        )
