"""Changes of plain configuration data: `key.path=value` texts and mappings by key path."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from hwnas.core.errors import UserError
from hwnas.core.json_data import MAX_INT
from hwnas.core.yaml_data import parse_yaml

__all__ = ["assignments", "checked_changes", "override"]


def assignments(texts: Sequence[str]) -> dict[str, Any]:
    """Parses texts `key.path=YAML value` of a command line to changes for `override`.

    Raises:
        UserError: a text is malformed.
    """
    changes: dict[str, Any] = {}
    for text in texts:
        path, equals, value = text.partition("=")
        path = path.strip()
        if not equals or not path:
            raise UserError("malformed --set", expected="key.path=value", found=text)
        changes.pop(path, None)  # for a repeated path, the last value counts, in its place
        changes[path] = parse_yaml(f"value: {value}", where=f"--set {text}").get("value")
    return changes


def override(data: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of `data` with values set by key path, e.g. `{"train.steps": 50}`, in order.

    Items of lists are addressed by number: `search.constraints.0.max`. Values must be representable
    in YAML; paths and numpy numbers are converted to text and numbers.

    Raises:
        UserError: a path leads through a value that is not a container, or a value has another
            type.
    """
    result: dict[str, Any] = copy.deepcopy(data)
    for path, given in checked_changes(changes).items():
        value = _plain(given, path)
        *parents, last = path.split(".")
        target: Any = result
        for parent in parents:
            target = _step(target, parent, path)
        if isinstance(target, dict):
            target[last] = value
        elif (position := _position(target, last)) is not None:
            target[position] = value
        else:
            raise _no_keys(last, path)
    return result


def checked_changes(changes: Any) -> Mapping[str, Any]:
    """The changes, which may be any object of a caller.

    Raises:
        UserError: they are not a mapping by key path.
    """
    if not isinstance(changes, Mapping) or not all(isinstance(path, str) for path in changes):
        raise UserError(
            "settings must be given by key path",
            expected='a mapping such as {"train.steps": 50}',
            found=repr(changes)[:80],
        )
    return changes


def _plain(value: Any, path: str) -> Any:
    """A copy of a value, converted to the types of YAML."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item, f"{path}.{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, path) for item in value]
    if isinstance(value, PurePath):
        return str(value)
    if callable(item := getattr(value, "item", None)):  # numpy scalar
        value = item()
    if value is not None and not isinstance(value, (bool, int, float, str)):
        raise UserError(
            "a setting has an unsupported type",
            expected="null, a number, text, a list or a mapping",
            found=repr(value)[:80],
            where=path,
        )
    if isinstance(value, int) and not -MAX_INT - 1 <= value <= MAX_INT:
        raise UserError(
            "integer is too large",
            expected="an integer of at most 64 bits",
            found=f"an integer of {value.bit_length() + 1} bits",
            where=path,
        )
    return value


def _position(target: Any, key: str) -> int | None:
    """Index of the list item that one part of a key path addresses; None if it addresses none."""
    if not isinstance(target, list) or not re.fullmatch("[0-9]{1,9}", key):
        return None
    return position if (position := int(key)) < len(target) else None


def _step(target: Any, key: str, path: str) -> Any:
    if isinstance(target, dict):
        if target.get(key) is None:
            target[key] = {}
        elif isinstance(target[key], str):
            target[key] = {"name": target[key]}  # `searcher: random` is short for a section
        return target[key]
    if (position := _position(target, key)) is not None:
        return target[position]
    raise _no_keys(key, path)


def _no_keys(key: str, path: str) -> UserError:
    return UserError(
        "a key path does not lead to a setting",
        expected="keys of sections, or numbers of existing list items, joined by dots",
        found=f"the part {key!r}",
        where=path,
    )
