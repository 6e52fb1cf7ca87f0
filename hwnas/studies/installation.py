"""Checks the installation: versions, optional packages, and other packages named `hwnas`."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement

import hwnas

__all__ = ["Finding", "State", "installation", "optional_packages", "rivals"]

State = Literal["ok", "absent", "slow", "problem"]

PACKAGE = "hwnas"
NOT_FOR_USERS = frozenset({"bench", "dev", "docs"})
"""Extras that only the development of hwnas needs."""


@dataclass(frozen=True)
class Finding:
    """One fact about the installation or the machine.

    about: group of the fact.
    state: `absent` if something optional is missing, `slow` if work takes longer than it needs to,
        `problem` if results may be wrong or commands fail.
    fix: the command or the change that helps; empty if nothing has to be done.
    """

    about: str
    what: str
    found: str
    state: State = "ok"
    fix: str = ""


def installation() -> Iterator[Finding]:
    """The versions of hwnas, Python and the required packages."""
    home = Path(hwnas.__file__).resolve().parent
    yield Finding("versions", PACKAGE, f"{hwnas.__version__} in {home}")
    yield Finding("versions", "python", f"{platform.python_version()}, {sys.executable}")
    ours = _distribution()
    if ours is None:
        yield Finding(
            "versions",
            "requirements",
            "unknown: hwnas is imported from a folder and is not installed",
            "problem",
            f"pip install -e {home.parent}",
        )
        return
    if ours.version != hwnas.__version__:
        yield Finding(
            "versions",
            "requirements",
            f"read from hwnas {ours.version}, but Python imports hwnas {hwnas.__version__}",
            "problem",
            f"pip install -e {home.parent}",
        )
    for needed in map(Requirement, ours.requires or ()):
        if needed.marker is None or needed.marker.evaluate({"extra": ""}):
            yield _required(needed)


def _required(needed: Requirement) -> Finding:
    version = _version(needed.name)
    if version is None:
        fix = f"pip install '{needed.name}{needed.specifier}'"
        return Finding("versions", needed.name, "not installed", "problem", fix)
    if not needed.specifier.contains(version, prereleases=True):
        found = f"{version}, but hwnas needs {needed.specifier}"
        fix = f"pip install '{needed.name}{needed.specifier}'"
        return Finding("versions", needed.name, found, "problem", fix)
    return Finding("versions", needed.name, version)


def optional_packages() -> Iterator[Finding]:
    """The packages of every extra that users may need, with the command that installs them."""
    ours = _distribution()
    if ours is None:
        return
    needed = [Requirement(text) for text in ours.requires or ()]
    for extra in sorted(set(ours.metadata.get_all("Provides-Extra") or ()) - NOT_FOR_USERS):
        versions: dict[str, str | None] = {}
        for one in needed:
            is_of_extra = one.marker is not None and one.marker.evaluate({"extra": extra})
            if is_of_extra and not (one.marker and one.marker.evaluate({"extra": ""})):
                version = _version(one.name)
                fits = version is not None and one.specifier.contains(version, prereleases=True)
                versions[one.name + ("" if fits else str(one.specifier))] = (
                    version if fits else None
                )
        lacking = [name for name, version in versions.items() if version is None]
        if lacking:
            found = f"lacks {', '.join(lacking)}"
            yield Finding("optional", extra, found, "absent", f"pip install 'hwnas[{extra}]'")
        else:
            found = ", ".join(f"{name} {version}" for name, version in versions.items())
            yield Finding("optional", extra, found)


def rivals() -> Iterator[Finding]:
    """Other packages that provide a module `hwnas`, which may be imported in place of ours."""
    clean = True
    owners = importlib.metadata.packages_distributions().get(PACKAGE, [])
    for name in sorted(set(owners) - {PACKAGE}):
        clean = False
        yield Finding(
            "name",
            name,
            f"version {_version(name)} also installs a module {PACKAGE}, into the same files",
            "problem",
            f"pip uninstall {name}, then pip install --force-reinstall --no-deps hwnas",
        )
    home = Path(hwnas.__file__).resolve().parent
    for place in _elsewhere(home):
        clean = False
        if (place / "cli" / "main.py").is_file():
            yield Finding("name", "copy of hwnas", f"also in {place}; this Python uses {home}")
            continue
        yield Finding(
            "name",
            f"module {PACKAGE}",
            f"a second module in {place}, which Python imports if it starts in another folder",
            "problem",
            "uninstall or rename it, or start Python in another folder",
        )
    if clean:
        yield Finding("name", f"module {PACKAGE}", f"the only one: {home}")


def _elsewhere(home: Path) -> Iterator[Path]:
    """Packages and modules named `hwnas` on the path of Python, other than the imported one."""
    seen = {home}
    for entry in sys.path:
        folder = Path(entry or ".").resolve()
        package, module = folder / PACKAGE, folder / f"{PACKAGE}.py"
        found = [package] if (package / "__init__.py").is_file() else []  # not the command `hwnas`
        found += [module] if module.is_file() else []
        for place in found:
            if place.resolve() not in seen:
                seen.add(place.resolve())
                yield place


def _distribution() -> importlib.metadata.Distribution | None:
    try:
        return importlib.metadata.distribution(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        return None


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
