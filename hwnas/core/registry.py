"""Registries: the variants of one kind, in hwnas and other packages, imported when chosen."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import pkgutil
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
    """What the module of every variant with settings holds besides its `build`."""

    @property
    def Config(self) -> type[BaseModel]:
        """Its section of the configuration: a `StrictModel` with `name: Literal["x"] = "x"`."""
        ...


@dataclass(frozen=True)
class Variant:
    """One registered module.

    missing: optional packages that it needs and that are absent; `install` is the command for them.
    package: the distribution that it comes with.
    problem: why it cannot be chosen; empty where it can.
    """

    name: str
    summary: str
    missing: tuple[str, ...] = ()
    install: str | None = None
    package: str = "hwnas"
    problem: str = ""

    @property
    def available(self) -> str:
        """`yes`, or what to do about it, for a table."""
        return f"no: {self.problem}" if self.problem else self.install or "yes"


@dataclass(frozen=True)
class Registry(Generic[M]):
    """The variants of one kind; `M` is the Protocol of their modules.

    Every public module of `package` that is not in `infrastructure` is one, named after its file,
    and so is every entry point that an installed package has in the group `hwnas.PLURAL`
    (`core.plugins`). A variant states what it needs in module-level literals, which are read
    without importing it: its docstring (first line = summary), and optionally
    `REQUIRES = ("package", ...)` with `EXTRA = "name"`, the extra of its distribution that installs
    them. Modules of other packages are checked against `contract` (= M) when they are loaded.
    """

    kind: str
    package: str
    infrastructure: frozenset[str] = frozenset()
    contract: type[Any] = object

    @property
    def plural(self) -> str:
        """What `hwnas list` calls the kind."""
        return f"{self.kind[:-1]}ies" if self.kind.endswith("y") else f"{self.kind}s"

    @property
    def names(self) -> tuple[str, ...]:
        """Names that can be chosen, sorted."""
        return tuple(sorted(self._places))

    @property
    def problems(self) -> tuple[Variant, ...]:
        """Variants of other packages that cannot be chosen, and why."""
        return self._outside[1]

    def describe(self, name: str) -> Variant:
        """Facts about one variant, read from its source without importing it.

        Raises:
            UserError: the name is unknown (lists the known ones), or its package's fault.
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
        """Import and return the variant's module.

        Raises:
            UserError: as `describe`; an optional package is missing; or the module of another
                package does not import, or is not what the contract asks for.
        """
        self.require(name)
        return self.declaration(name)

    def require(self, name: str) -> None:
        """Refuse a variant that lacks an optional package.

        Raises:
            UserError: as `describe`; or a package is missing.
        """
        variant = self.describe(name)
        if variant.missing:
            raise UserError(
                f"{self.kind} {name!r} needs a package that is not installed",
                found=f"missing {', '.join(variant.missing)}",
                fix=variant.install,
            )

    def declaration(self, name: str) -> M:
        """As `load`, for what the module declares: optional packages may be missing.

        Raises:
            UserError: as `load`, but for the missing package.
        """
        self._check(name)
        self._warn_of_rivals(name)
        place = self._places[name]
        if place.distribution is None:
            return cast(M, importlib.import_module(place.module))
        return cast(M, self._import_outside(place))

    def _warn_of_rivals(self, name: str) -> None:
        """Warn once about variants of other packages whose name hwnas uses itself."""
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
        except (Exception, SystemExit) as error:  # whatever foreign code raises
            raise UserError(
                f"{subject} does not import",
                found=f"{type(error).__name__}: {error}",
                where=place.module,
                fix=fix,
            ) from error
        if found := faults(module, self.contract, place.name):
            raise UserError(
                f"{subject} is not a {self.kind} module",
                expected=f"what hwnas.interfaces.{self.contract.__name__} asks for",
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
            raise UserError(f"duplicate {self.kind} names", found=duplicates, where=self.package)
        return {name: Place(name, f"{self.package}.{name}") for name in found}

    @cached_property
    def _outside(self) -> tuple[dict[str, Place], tuple[Variant, ...]]:
        """Those of other packages that can be chosen, and those that cannot."""
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
