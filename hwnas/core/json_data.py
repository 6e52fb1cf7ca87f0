"""Strict JSON: rejects text that readers interpret differently, and values that no field can hold.

The device kit reads bundles and plans by the same rules (`export/bench_json.py`).
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from typing import Any

from hwnas.core.errors import Invalid, UserError, parts_of

__all__ = ["MAX_INT", "parse_json", "strict_json"]

MAX_INT = 2**63 - 1
MAX_VALUES = 4_000_000  # in memory, up to half a gigabyte
_MAX_DIGITS = len(str(MAX_INT))
_LONG_NUMBER = re.compile("[0-9]{19}")  # an integer that may need more than 64 bits
_ESCAPED_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def parse_json(content: bytes | str, *, where: object, problem: str = "not valid JSON") -> Any:
    """`strict_json`, with a `UserError` instead of its errors.

    Raises:
        UserError: with the text `problem`; see `strict_json`.
    """
    try:
        return strict_json(content)
    except (ValueError, RecursionError) as error:
        raise UserError(problem, **parts_of(error), where=where) from error


def strict_json(content: bytes | str) -> Any:
    """The value of a JSON text in UTF-8.

    Raises:
        ValueError: the text is not JSON, or has a duplicate key, an integer beyond 64 bits, a
            number that is not finite, an unpaired surrogate, or millions of values.
        RecursionError: nested too deeply.
    """
    data = content.encode() if isinstance(content, str) else content
    if len(data) > MAX_VALUES and (n := sum(map(data.count, (b",", b"[", b"{")))) > MAX_VALUES:
        raise Invalid(f"at most {MAX_VALUES:,} values", f"about {n:,} values")
    text = data.decode("utf-8")
    value = (_DECODER if _LONG_NUMBER.search(text) else _FAST_DECODER).decode(text)
    if _ESCAPED_SURROGATE.search(data):  # an unpaired one raises UnicodeEncodeError, a ValueError
        json.dumps(value, ensure_ascii=False).encode()
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        (twice, _), *_ = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"duplicate key {twice!r:.80}")
    return found


def _int(text: str) -> int:
    if len(text) <= _MAX_DIGITS + 1:  # and a sign
        value = int(text)
        if -MAX_INT - 1 <= value <= MAX_INT:
            return value
    raise ValueError(f"an integer of {len(text)} digits, more than 64 bits: {text:.30}")


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"a number out of range: {text:.30}")
    return value


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not allowed")


_FAST_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_float=_float, parse_constant=_refuse_constant
)
_DECODER = json.JSONDecoder(
    object_pairs_hook=_object,
    parse_int=_int,
    parse_float=_float,
    parse_constant=_refuse_constant,
)
