"""YAML as data: no tags, no aliases, no import paths, no interpolation."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from hwnas.core.confined import read_regular
from hwnas.core.errors import UserError
from hwnas.core.json_data import MAX_INT
from hwnas.core.store import content_hash
from hwnas.core.text import kind_of

__all__ = ["is_unaltered", "parse_yaml", "read_yaml", "sealed_yaml", "yaml_text"]

MAX_YAML_BYTES = 1 << 20
MAX_NODES = 50_000  # keys and values of a file: two seconds of parsing
MAX_DEPTH = 40
SEAL = "# check "  # without a colon: no single flipped bit makes it a key
FLOAT_TAG = "tag:yaml.org,2002:float"
EXPONENT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$")  # YAML 1.2: 1e-3
LEADING_ZERO = re.compile(r"[-+]?0[0-9_]+")


def read_yaml(path: Path) -> dict[str, Any]:
    """Parses a YAML file of plain data.

    Raises:
        UserError: the file is missing, unreadable, not regular, too large, too deeply nested, has
            aliases, or is not a mapping.
    """
    return parse_yaml(_text_of(Path(path)), where=path)


def _text_of(path: Path) -> str:
    try:
        return read_regular(path, at_most=MAX_YAML_BYTES).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError("cannot read config file", found=str(error), where=path) from error


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses duplicate keys, long files, and aliases (exponential files)."""

    n_nodes = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.n_nodes += 1
        if self.n_nodes > MAX_NODES:
            raise yaml.YAMLError(f"more than {MAX_NODES:,} keys and values")
        if self.check_event(yaml.events.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not supported")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        known: set[str] = set()
        for part, _ in node.value:
            key, mark = self.construct_object(part, deep=True), part.start_mark
            if not isinstance(key, str):
                raise yaml.YAMLError(f"{_not_text(part, key)} ({mark})")
            if key in known:
                raise yaml.YAMLError(f"duplicate key {key!r:.80} ({mark})")
            known.add(key)
        return super().construct_mapping(node, deep=deep)

    def construct_number(self, node: Any) -> Any:
        """Reads numbers as written; YAML 1.1 would read 010 as 8 and 1:30 as 90."""
        text = self.construct_scalar(node)
        if ":" in text:
            value = super().construct_yaml_float(node)
            raise yaml.YAMLError(
                f"YAML reads {text!r} as the base-60 number {value:g}; write {value:g}, or put it"
                f" into quotes ({node.start_mark})"
            )
        if LEADING_ZERO.fullmatch(text):
            raise yaml.YAMLError(
                f"{text!r}: a leading zero means octal in YAML; write"
                f" {int(text.replace('_', ''))}, or put it into quotes"
                f" ({node.start_mark})"
            )
        is_float = node.tag == FLOAT_TAG
        if is_float:
            return super().construct_yaml_float(node)
        value = super().construct_yaml_int(node)
        if not -MAX_INT - 1 <= value <= MAX_INT:
            raise yaml.YAMLError(f"{text:.30}: more than 64 bits ({node.start_mark})")
        return value


def _not_text(node: Any, key: Any) -> str:
    """Explains why a key that YAML reads as `key` is refused, in the text of the file."""
    if not isinstance(node, yaml.ScalarNode):
        return "a list or mapping is not a key; keys must be text"
    written = f"the key {node.value:.80}".rstrip()
    if key is None or isinstance(key, bool):
        meaning = "null" if key is None else str(key).lower()
        return f"{written} means {meaning} in YAML; put it into quotes"
    return f"{written} is not text; put it into quotes"


class _Dumper(yaml.SafeDumper):
    """SafeDumper that quotes text which `_Loader` would read as a number."""


for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver(FLOAT_TAG, EXPONENT, list("-+.0123456789"))
for _tag in (FLOAT_TAG, "tag:yaml.org,2002:int"):
    _Loader.add_constructor(_tag, _Loader.construct_number)


def yaml_text(data: Any) -> str:
    """Plain data as YAML, in the order of its keys; the inverse of `parse_yaml`."""
    text: str = yaml.dump(data, Dumper=_Dumper, sort_keys=False)
    return text


def sealed_yaml(data: Any) -> str:
    """`yaml_text` after a line with its hash, by which `is_unaltered` detects modifications."""
    text = yaml_text(data)
    return f"{SEAL}{content_hash(text)}\n{text}"


def is_unaltered(path: Path) -> bool:
    """Whether a YAML file is as `sealed_yaml` wrote it (in earlier versions: `yaml_text`).

    Raises:
        UserError: as `read_yaml`.
    """
    text = _text_of(path)
    seal, _, sealed = text.partition("\n")
    is_sealed = seal == SEAL + content_hash(sealed)
    return is_sealed or yaml_text(parse_yaml(text, where=path)) == text


def parse_yaml(text: str, *, where: object) -> dict[str, Any]:
    """The same as `read_yaml`, for a string."""
    try:
        data = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader, stricter
    except (yaml.YAMLError, ValueError, ArithmeticError, LookupError, RecursionError) as error:
        found = str(error).replace('  in "<unicode string>", ', "")[:500]  # `where` names the file
        raise UserError("not valid YAML", found=found, where=where) from error
    if not isinstance(data, dict):
        raise UserError(
            "not a configuration", expected="keys and values", found=kind_of(data), where=where
        )
    _check_plain(data, where)
    return data


def _check_plain(value: Any, where: object, depth: int = 0) -> None:
    """Refuses values of other types than those of JSON, and too many levels of nesting."""
    if not isinstance(value, (dict, list, str, int, float, type(None))):
        raise UserError(
            "the configuration has a value of an unknown type",
            expected="texts, numbers, true, false, null, lists, and objects with keys",
            found=f"{type(value).__name__}: {value!r:.80}",
            where=where,
            fix="put text that looks like a date into quotes",
        )
    if depth > MAX_DEPTH:
        raise UserError(
            "the configuration is nested too deeply",
            expected=f"at most {MAX_DEPTH} levels",
            where=where,
        )
    for text in (value,) if isinstance(value, str) else value if isinstance(value, dict) else ():
        if any("\ud800" <= letter <= "\udfff" for letter in text):
            raise UserError(
                "a text of the configuration has half of a character (an unpaired surrogate)",
                found=f"{text:.80}",
                where=where,
                fix="replace the escape that begins with \\uD by the character itself",
            )
    children = (
        value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    )
    for child in children:
        _check_plain(child, where, depth + 1)
