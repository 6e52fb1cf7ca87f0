"""YAML as data: no tags, no aliases, no import paths, no interpolation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from hwnas.core.confined import read_regular
from hwnas.core.errors import UserError

__all__ = ["parse_yaml", "read_yaml"]

MAX_YAML_BYTES = 4 * 1024 * 1024
MAX_DEPTH = 40


def read_yaml(path: Path) -> dict[str, Any]:
    """Parse a YAML file of plain data.

    Raises:
        UserError: missing, unreadable, no regular file, too large, too deep, with aliases, or not a
            mapping.
    """
    path = Path(path)
    try:
        text = read_regular(path, at_most=MAX_YAML_BYTES).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError("cannot read config file", found=str(error), where=path) from error
    return parse_yaml(text, where=path)


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses aliases (they allow exponential files) and duplicate keys."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not supported")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if not isinstance(key, str):
                raise yaml.YAMLError(f"keys must be text, found {key!r} ({node.start_mark})")
            if keys.count(key) > 1:
                raise yaml.YAMLError(f"duplicate key {key!r} ({node.start_mark})")
        return super().construct_mapping(node, deep=deep)


def parse_yaml(text: str, *, where: object) -> dict[str, Any]:
    """`read_yaml` of a string."""
    try:
        data = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader, stricter
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError("not valid YAML", found=str(error), where=where) from error
    if not isinstance(data, dict):
        raise UserError(
            "not a config", expected="a mapping of keys", found=type(data).__name__, where=where
        )
    _check_plain(data, where)
    return data


def _check_plain(value: Any, where: object, depth: int = 0) -> None:
    """Nothing but mappings, lists, text, numbers, booleans and null; not too deep."""
    if not isinstance(value, (dict, list, str, int, float, type(None))):
        raise UserError(
            "config is not plain data",
            found=f"{type(value).__name__}: {value!r:.80}",
            where=where,
            fix="put text that looks like a date into quotes",
        )
    if depth > MAX_DEPTH:
        raise UserError("config is nested too deeply", expected=f"<= {MAX_DEPTH}", where=where)
    children = (
        value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    )
    for child in children:
        _check_plain(child, where, depth + 1)
