"""Rejects arguments that do not apply, contradict each other or cannot be used."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hwnas.api.result import Folder, Settings
from hwnas.core.errors import UserError
from hwnas.core.store import why_unwritable

__all__ = ["refuse_both", "refuse_unused", "require_place"]


def refuse_unused(given: Mapping[str, object], *, to: str, fix: str) -> None:
    """Refuses arguments that have no effect.

    given: maps option names, such as `--resolutions`, to values; None, False and empty values count
        as not given.
    to: the thing to which they do not apply, in words.

    Raises:
        UserError: names the given options.
    """
    unused = [name for name, value in given.items() if not _is_absent(value)]
    if unused:
        do = "does" if len(unused) == 1 else "do"
        raise UserError(
            f"{', '.join(unused)} {do} not apply to {to}",
            expected=f"a call without {' and '.join(unused)}",
            found=", ".join(f"{name} {_shown(given[name])}" for name in unused),
            fix=fix,
        )


def refuse_both(option: str, value: object, setting: str, settings: Settings) -> None:
    """Refuses an option and a setting that define the same value.

    Raises:
        UserError: both are given.
    """
    if value is None or not isinstance(settings, Mapping):
        return
    both = [key for key, given in settings.items() if _says(str(key), given, setting)]
    if both:
        raise UserError(
            f"{option} and --set {both[0]} set the same value twice",
            expected="only one of them",
            found=f"{option} {_shown(value)}, --set {both[0]}={settings[both[0]]}",
            fix=f"leave out {option}, or --set {both[0]}",
        )


def require_place(out: Folder | None, suffix: str = "") -> None:
    """Refuses a path where no file can be written, before anything is computed for it.

    suffix: ending of the path by which the file is recognised when it is read.

    Raises:
        UserError: the path is a folder, its folder cannot be created or written, or the path has
            another suffix.
    """
    if out is None:
        return
    path = Path(out).absolute()
    try:
        there = next(folder for folder in path.parents if folder.exists())
        is_folder = path.is_dir()
    except (OSError, ValueError) as error:  # an invalid file name
        problem: str | None = str(error)
    else:
        problem = f"{path} is a folder" if is_folder else why_unwritable(there)
    if problem:
        raise UserError(
            "cannot write the file",
            expected="the path of a file in a writable folder",
            found=problem,
            where=repr(str(out))[:200],
            fix="give another path",
        )
    if not path.name.endswith(suffix):
        raise UserError(
            "the name of the output file has the wrong ending",
            expected=f"a name that ends with {suffix}",
            found=repr(path.name)[:200],
            where="out",
            fix=f"use the name {path.stem}{suffix}",
        )


def _says(key: str, given: Any, setting: str) -> bool:
    """Whether a change of `key` sets `setting`, or a part of it."""
    if not f"{setting}.".startswith(f"{key}."):
        return key.startswith(f"{setting}.")
    for name in setting[len(key) + 1 :].split(".") if setting != key else ():
        if not isinstance(given, Mapping) or name not in given:
            return False
        given = given[name]
    return True


def _is_absent(value: object) -> bool:
    return value is None or value is False or (hasattr(value, "__len__") and not len(value))


def _shown(value: Any) -> str:
    if value is True:
        return ""
    if isinstance(value, Mapping):
        return " ".join(f"{key}={item}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ",".join(map(str, value))
    return str(value)
