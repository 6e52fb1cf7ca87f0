"""Structure-aware mutations of the files that hwnas reads, from a fixed seed."""

from __future__ import annotations

import copy
import json
import random
import re
import struct
from typing import Any

__all__ = [
    "Raw",
    "contradicts_json",
    "document",
    "mutated_bytes",
    "mutated_csv",
    "mutated_json",
    "mutated_yaml",
]


class Raw(str):
    """A token that is written as it stands, whether JSON or not."""


class Pairs(list[tuple[str, Any]]):
    """An object by its pairs, so that a key may be there twice."""


VALUES: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 1, -360, 7, 255, 256, 32767, 32768, 65536, 2**31, 2**63 - 1),
    *(-0.0, -3.0, 1e-320, 1e308, 0.5, 1.5, "", "x", "none", "x" * 5000, "\x1b[2J", "../../x"),
    *([], {}, [[]], [0] * 300, {"name": "x"}, "a\nb", "²", "1", "0.5"),
    *(Raw("1" + "0" * 5000), Raw(str(2**63)), Raw("1e999"), Raw("-1e999"), Raw("NaN")),
    *(Raw('"\\ud800"'), Raw('"\\udfff\\ud800x"'), Raw("Infinity"), Raw("[" * 40 + "]" * 40)),
)


def document(value: Any) -> str:
    """JSON text of a mutated value."""
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, Pairs):
        return "{" + ", ".join(f"{json.dumps(k)}: {document(v)}" for k, v in value) + "}"
    if isinstance(value, dict):
        return document(Pairs(value.items()))
    if isinstance(value, list):
        return "[" + ", ".join(map(document, value)) + "]"
    return json.dumps(value)


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of some parts of a value: of long lists the first, the second and the last."""
    found = [path] if path else []
    if isinstance(value, dict):
        for key, item in value.items():
            found += _paths(item, (*path, key))
    elif isinstance(value, list):
        for index in sorted({0, 1, len(value) - 1} & set(range(len(value)))):
            found += _paths(value[index], (*path, index))
    return found


def mutated_json(value: Any, stream: random.Random) -> Any:
    """A copy with one or two parts changed: value, type, key or size."""
    changed = copy.deepcopy(value)
    for _ in range(stream.choice((1, 1, 1, 2))):
        paths = _paths(changed)
        if not paths:
            return stream.choice(VALUES)
        *parents, last = stream.choice(paths)
        target = changed
        for step in parents:
            target = target[step]
        how = stream.randrange(8)
        now = target[last]
        if how == 0:
            del target[last]
        elif how == 1 and isinstance(now, (int, float)) and not isinstance(now, bool):
            target[last] = stream.choice((-now, now * 1e6, now + 1, now - 1, now / 1e6, str(now)))
        elif how == 2 and isinstance(now, list):
            target[last] = [*now, *now] if stream.random() < 0.5 else now[:-1]
        elif how == 3 and isinstance(target, dict):
            target[stream.choice(("unknown", "²", f"{last} ", ""))] = now
        elif how == 4 and isinstance(now, dict) and now:
            key = stream.choice(list(now))
            twice = Pairs([*now.items(), (key, stream.choice((now[key], 0, "x")))])
            target[last] = Raw(document(twice))
        elif how == 5:
            *around, other = stream.choice(paths)
            source: Any = changed
            try:
                for step in around:
                    source = source[step]
                target[last] = copy.deepcopy(source[other])
            except (KeyError, IndexError, TypeError):
                target[last] = None
        else:
            target[last] = stream.choice(VALUES)
    return changed


def mutated_yaml(text: str, stream: random.Random) -> str:
    """A line dropped, doubled, indented, or with another value."""
    lines = text.splitlines()
    row = stream.randrange(len(lines))
    how = stream.randrange(7)
    if how == 0:
        del lines[row]
    elif how == 1:
        lines.insert(stream.randrange(len(lines) + 1), lines[row])
    elif how == 2:
        lines[row] = (
            stream.choice((" ", "  ", "- ", "\t", "&a ", "*a ", "!!python/x ")) + lines[row]
        )
    elif how == 3:
        key = lines[row].partition(":")[0]
        lines[row] = f"{key}: {document(stream.choice(VALUES))}"
    elif how == 4:
        key = lines[row].partition(":")[0]
        tokens = (
            "010",
            "1:30",
            "2001-01-01",
            "{a: 1, a: 2}",
            "0x" + "f" * 4000,
            ".inf",
            "~",
            "yes",
        )
        lines[row] = f"{key}: {stream.choice(tokens)}"
    elif how == 5:
        lines[row] = re.sub("[0-9]+", lambda m: str(int(m[0]) * 10**6 + 1), lines[row])
    else:
        return mutated_bytes("\n".join(lines).encode(), stream).decode("utf-8", "replace")
    return "\n".join(lines) + "\n"


CELLS = (
    *("", " ", "-1", "0", "nan", "inf", "1e999", "1e-320", "0,5", "1.234,5", "1_000", "0x10", "²"),
    *(
        "9" * 5000,
        "x" * 5000,
        "=1+1",
        '"',
        '""',
        "\ud800",
        "\0",
        "\r",
        "a\nb",
        "1;2",
        "\x1b[2J",
        "true",
    ),
)


def mutated_csv(text: str, stream: random.Random) -> str:
    """A row dropped, doubled or moved, a cell replaced, dropped or doubled, or other separators."""
    rows = [line.split(",") for line in text.splitlines()]
    row = stream.randrange(len(rows)) if stream.random() < 0.8 else 0
    cell = stream.randrange(len(rows[row]))
    how = stream.randrange(8)
    if how == 0:
        del rows[row]
    elif how == 1:
        rows.insert(stream.randrange(len(rows) + 1), rows[row])
    elif how == 2:
        del rows[row][cell]
    elif how == 3:
        rows[row].insert(cell, stream.choice(CELLS))
    elif how == 4:
        return text.replace(",", stream.choice((";", "\t", "|", ", ", ",,")))
    elif how == 5:
        return stream.choice(("\ufeff", "sep=,\n", "\n\n", "# x\n")) + text
    elif how == 6:
        rows[row][cell] = rows[stream.randrange(len(rows))][cell]
    else:
        rows[row][cell] = stream.choice(CELLS)
    return "\n".join(",".join(cells) for cells in rows) + "\n"


def mutated_bytes(data: bytes, stream: random.Random) -> bytes:
    """A bit, a byte, a cut, zeros, a doubled or dropped part, or a huge number in a header."""
    changed = bytearray(data)
    near = stream.randrange(min(len(data), 256)) if data else 0
    at = near if stream.random() < 0.5 else stream.randrange(max(1, len(data)))
    how = stream.randrange(7)
    if how == 0 and data:
        changed[at] ^= 1 << stream.randrange(8)
    elif how == 1 and data:
        changed[at] = stream.randrange(256)
    elif how == 2:
        del changed[at:]
    elif how == 3:
        changed[at : at + 16] = bytes(min(16, len(data) - at))
    elif how == 4:
        changed[at:at] = changed[at : at + stream.randrange(1, 64)]
    elif how == 5:
        del changed[at : at + stream.randrange(1, 64)]
    else:
        numbers = (b"99999999999", b"-1", struct.pack("<Q", 2**40), struct.pack("<I", 2**31))
        number = stream.choice(numbers)
        changed[at : at + len(number)] = number
    return bytes(changed)


def contradicts_json(text: str) -> str | None:
    """Why no reader may take a JSON text at its word, by a reader that keeps everything."""
    problems: list[str] = []

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(found)) != len(found):
            problems.append("a key is there twice")
        return dict(found)

    def integer(digits: str) -> int:
        if len(digits) > 20 or not -(2**63) <= int(digits[:21]) < 2**63:
            problems.append("an integer of more than 64 bits")
            return 0
        return int(digits)

    def number(digits: str) -> float:
        if float(digits) in (float("inf"), float("-inf")):
            problems.append("a number beyond all floats")
        return float(digits)

    def constant(name: str) -> float:
        problems.append(name)
        return 0.0

    try:
        value = json.loads(
            text,
            object_pairs_hook=pairs,
            parse_int=integer,
            parse_float=number,
            parse_constant=constant,
        )
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        problems.append("half of a surrogate pair")
    except (ValueError, RecursionError):
        problems.append("no JSON")
    return problems[0] if problems else None
