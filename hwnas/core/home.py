"""Expands `~` in paths that users give to the command line and to public functions."""

from __future__ import annotations

from functools import wraps
from inspect import isfunction
from pathlib import Path
from typing import Any

from hwnas.core.env import user_path

__all__ = ["home_expanded", "with_home"]


def home_expanded(given: Any, *, where: str) -> Any:
    """Expands `~` at the start of text, paths, and lists of them; other values are unchanged.

    A shell leaves `~` as it is in quotes and in `--out=~/x`.

    Raises:
        UserError: as in `user_path`.
    """
    if type(given) in (list, tuple):
        return type(given)(home_expanded(one, where=where) for one in given)
    if not isinstance(given, (str, Path)) or not str(given).startswith("~"):
        return given
    return type(given)(user_path(given, where=where))


def with_home(public: Any) -> Any:
    """Wraps a public function so that it expands `~` in its arguments; returns others unchanged."""
    if not isfunction(public):
        return public

    @wraps(public)
    def call(*arguments: Any, **named: Any) -> Any:
        where = f"hwnas.{public.__name__}"
        given = {key: home_expanded(value, where=where) for key, value in named.items()}
        return public(*home_expanded(arguments, where=where), **given)

    return call
