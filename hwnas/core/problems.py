"""Formats pydantic's validation errors, one line each."""

from __future__ import annotations

import re
from typing import Any, get_args

from pydantic import BaseModel

from hwnas.core.decimals import with_point
from hwnas.core.errors import did_you_mean
from hwnas.core.expected import MISSING, OWN, UNKNOWN, Problem
from hwnas.core.registry import Registry
from hwnas.core.text import in_words

__all__ = ["explain"]

WORD = re.compile(r"[\w.-]+")
LONGEST = 200  # characters of a text that a hint writes as a list


def explain(problem: Problem, model: type[BaseModel], data: Any) -> str:
    """One line: the key path, what was expected and found, and how to fix a common mistake."""
    path = f"{'.'.join(str(part) for part in problem.place):.200}"
    at = f"{path}: " if path else ""
    if problem.kind in UNKNOWN:
        known = _known_keys(model, problem.place[:-1], data)
        listed = f"known: {', '.join(known)}" if known else ""
        hint = did_you_mean(str(problem.place[-1]), known, otherwise=listed)
        return f"{at}unknown key" + (f"; {hint}" if hint else "")
    if problem.kind in MISSING:
        return f"{at}this key is required, but missing"
    given = problem.given
    shown = repr(given) if isinstance(given, str) else in_words(given)
    says_found = problem.says_found
    if problem.kind == "value_error" and _known_keys(model, problem.place, data):
        says_found = True  # a whole section; the message names its keys
    found = "" if says_found else f", found {shown:.80}"
    expected = problem.expected if problem.kind in OWN else f"expected {problem.expected}"
    return f"{at}{expected}{found}{_hint(problem)}"


def _hint(problem: Problem) -> str:
    """A hint for common mistakes."""
    given, kind = problem.given, problem.kind
    is_whole = kind == "int_type"
    if is_whole and isinstance(given, float) and given.is_integer():
        return f"; write {int(given)}"
    if kind == "string_type" and isinstance(given, bool):
        return "; YAML reads on, off, yes and no as true and false: put the word into quotes"
    if kind in ("tuple_type", "list_type") and isinstance(given, (str, int, float)):
        words = re.split("[,; ]+", str(given)[:LONGEST])
        return f"; write [{', '.join(words)}]" if all(map(WORD.fullmatch, words)) else ""
    if kind in ("float_type", "int_type") and isinstance(given, str):
        if re.fullmatch(r"\s*[-+]?[0-9]{1,3}([, '_][0-9]{3})+\s*", given) and is_whole:
            return f"; write {re.sub('[^0-9+-]', '', given)}: digits have no separators"
        if re.fullmatch(r"0[0-9]+", given):  # 08 is no octal number, thus text in YAML
            return f"; write {int(given)}, without a leading zero"
        if (number := with_point(given)) is not None:
            return f"; write {number}: decimals come after a point"
        if re.fullmatch(r"\s*[0-9.]+\s*%\s*", given) and given.count(".") < 2:
            return f"; write {float(given.strip(' %')) / 100:g}: shares are numbers from 0 to 1"
        if re.fullmatch(r"\s*[-+]?[0-9][0-9_]*[.,0-9eE+-]*\s*", given):
            return "; remove the quotes around the number"
        if unit := re.fullmatch(r"\s*([-+]?[0-9]+(?:\.[0-9]+)?)\s*(us|ms|s|px|mJ)\s*", given):
            return f"; write {unit[1]}, without a unit"
    return ""


def _known_keys(model: type[BaseModel], path: tuple[Any, ...], data: Any) -> list[str]:
    """Keys of the section at `path`; the variant of a section is taken from `data`."""
    current: Any = model
    for part in path:
        if isinstance(part, int):  # an item of a list, all of one type
            current = next(iter(get_args(current)), None)
            data = data[part] if isinstance(data, list) and part < len(data) else None
            continue
        if not (isinstance(current, type) and issubclass(current, BaseModel)):
            return []
        field = current.model_fields.get(str(part))
        data = data.get(part) if isinstance(data, dict) else None
        if field is None:
            return []
        registry = next((item for item in field.metadata if isinstance(item, Registry)), None)
        name = data.get("name") if isinstance(data, dict) else None
        if registry is not None and name in registry.names:
            current = registry.declaration(name).Config
        elif type(None) in get_args(field.annotation):  # an optional section
            current = get_args(field.annotation)[0]
        else:
            current = field.annotation
    if isinstance(current, type) and issubclass(current, BaseModel):
        return sorted(current.model_fields)
    return []
