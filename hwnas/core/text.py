"""Makes untrusted text safe to print: control characters are escaped."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Set
from typing import Any, TextIO, cast

__all__ = ["guarded_streams", "in_words", "kind_of", "raw", "visible"]

_OBEYED = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f"  # control characters except the newline
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # characters that change the direction of text
    "\u2028\u2029\ufeff\ud800-\udfff]"  # line separators, byte order mark, lone surrogates
)


def visible(text: str, *, one_line: bool = False) -> str:
    """`text` with control characters replaced by their codes: `\\x1b`, `\\u202e`.

    one_line: whether newlines are replaced as well, for cells and names.
    """
    if text.isascii() and text.isprintable():
        return text
    shown = _OBEYED.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
    return shown.replace("\n", "\\n") if one_line else shown


def in_words(value: object) -> str:
    """A value as text, written as in YAML: `true`, `null`, `{max: 3}`, `[3, 32]`, `ant, bee`."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{in_words(k)}: {_inner(v)}" for k, v in value.items()) + "}"
    if isinstance(value, (list, tuple, Set)):
        items = ", ".join(map(_inner, value))
        return items if value and all(isinstance(item, str) for item in value) else f"[{items}]"
    return str(value)


def kind_of(value: object) -> str:
    """The kind of a value of JSON or YAML: `a list`, `an object with keys`, `a number`."""
    if value is None or isinstance(value, bool):
        return in_words(value)
    kinds = {str: "a text", int: "a number", float: "a number", dict: "an object with keys"}
    return "a list" if isinstance(value, (list, tuple)) else kinds.get(type(value), "other data")


def _inner(value: object) -> str:
    words = in_words(value)  # once: twice per level would take 2 ** depth
    is_list = isinstance(value, (list, tuple, Set)) and not words.startswith("[")
    return f"[{words}]" if is_list else words


class _Guarded:
    """A text stream that escapes everything written to it; `raw` is the underlying stream."""

    def __init__(self, stream: TextIO) -> None:
        self.raw = stream

    def write(self, text: str) -> int:
        self.raw.write(visible(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.raw, name)


def raw(stream: TextIO) -> TextIO:
    """The stream behind a guarded one, for code that moves the cursor and writes `visible` text."""
    return stream.raw if isinstance(stream, _Guarded) else stream


@contextlib.contextmanager
def guarded_streams() -> Iterator[None]:
    """Context in which everything written to stdout and stderr is escaped."""
    before = sys.stdout, sys.stderr
    guarded = [stream if isinstance(stream, _Guarded) else _Guarded(stream) for stream in before]
    sys.stdout, sys.stderr = (cast(TextIO, stream) for stream in guarded)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
