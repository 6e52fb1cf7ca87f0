"""Errors of pydantic in plain words: the place of each problem, and what was expected there."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from hwnas.core.errors import Invalid
from hwnas.core.text import in_words

__all__ = ["MISSING", "OWN", "PATTERNS", "UNKNOWN", "Problem", "problems_of"]

MISSING = ("missing", "missing_argument", "missing_keyword_only_argument")
UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")
OWN = ("value_error", "variant", "no_variant")
SHORT = "too_short"
"""Types of pydantic's errors: for a missing key, an unknown key, from our own checks,
and for a list with too few items."""

KINDS = {
    "bool_type": "true or false",
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "text",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "keys with values",
    "model_type": "keys with values",
    "dataclass_type": "keys with values",
}
BOUNDS = {
    "greater_than": ("gt", "a number above {}"),
    "greater_than_equal": ("ge", "a number of at least {}"),
    "less_than": ("lt", "a number below {}"),
    "less_than_equal": ("le", "a number of at most {}"),
    "multiple_of": ("multiple_of", "a multiple of {}"),
    "string_too_short": ("min_length", "text of at least {} characters"),
    "string_too_long": ("max_length", "text of at most {} characters"),
    "too_short": ("min_length", "a list with at least {} items"),
    "too_long": ("max_length", "a list with at most {} items"),
    "literal_error": ("expected", "{}"),
}
_FIRST = "starting with a letter or a digit"
_WORD = "letters, digits and the characters _ . -"
PATTERNS = {
    r"^[A-Za-z0-9][A-Za-z0-9_.-]*$": f"{_WORD}, {_FIRST}",
    r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$": f"up to 64 {_WORD}, {_FIRST}",
    r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,79}$": f"up to 80 {_WORD}, {_FIRST}",
    r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$": f"up to 100 {_WORD}, {_FIRST}",
    r"^[A-Za-z][A-Za-z0-9_.-]{0,39}$": f"up to 40 {_WORD}, starting with a letter",
    r"^[A-Za-z0-9][A-Za-z0-9.-]*$": f"letters, digits and the characters . -, {_FIRST}",
    r"^[A-Za-z0-9_][A-Za-z0-9_.:-]*$": (
        "letters, digits and the characters _ . : -, starting with a letter, a digit or _"
    ),
    r"^[A-Za-z0-9_][A-Za-z0-9_.:() -]*$": (
        "letters, digits, spaces and the characters _ . : ( ) -,"
        " starting with a letter, a digit or _"
    ),
    r"^[A-Za-z0-9_./][A-Za-z0-9_./-]*$": (
        "a path of letters, digits and the characters _ . / -, not starting with -"
    ),
    r"^[A-Za-z0-9+/]*={0,2}$": "base64",
    r"^[0-9]+(\.[0-9]+)*$": "a version such as 1.20.3",
    r"^[0-9]+\.[0-9]$": "a whole number, a point and one digit, such as 8.9",
    "^[0-9a-f]{16}$": "16 of the characters 0-9 and a-f",
    "^[0-9a-f]{64}$": "64 of the characters 0-9 and a-f (a sha256)",
    r"^[^\x00-\x1f\x7f]*$": "text on one line, without control characters",
}
"""The regular expressions of settings and records, in words."""


@dataclass(frozen=True)
class Problem:
    """One wrong value.

    kind: pydantic's type of the error. place: keys and indices that lead to the value.
    expected: what the value must be; for errors of our own checks, their text. given: the value.
    error: the exception that our own check raised, else None.
    """

    kind: str
    place: tuple[int | str, ...]
    expected: str
    given: Any
    error: BaseException | None = None

    @property
    def says_found(self) -> bool:
        """Whether `expected` already states the value, or there is none to show."""
        if self.kind in (*MISSING, *UNKNOWN, "variant", "json_invalid"):
            return True
        return isinstance(self.error, Invalid) and self.error.found is not None


def problems_of(errors: Iterable[Any], data: Any) -> list[Problem]:
    """The problems that pydantic's `errors` report in `data`.

    Pydantic reports one error per type for a value that may have one of several types, and one
    error per missing item of a list of fixed length. Each becomes one problem.
    """
    found: dict[Hashable, Problem] = {}
    for error in errors:
        place = _place(error, data)
        if error["type"] in MISSING and place and isinstance(place[-1], int):
            least = f"a list with {place[-1] + 1} items"
            found[SHORT, place[:-1]] = Problem(SHORT, place[:-1], least, error["input"])
            continue
        own = error.get("ctx", {}).get("error")
        reason = own if isinstance(own, BaseException) else None
        problem = Problem(error["type"], place, _expected(error), error["input"], reason)
        has_types = len(place) < len(error["loc"])
        key = ("types" if has_types else len(found), place)
        if earlier := found.get(key):
            either = f"{earlier.expected}, or {problem.expected}"
            problem = replace(earlier, expected=either)
        found[key] = problem
    return list(found.values())


def _place(error: Any, data: Any) -> tuple[int | str, ...]:
    """The path without pydantic's names for the types of a union, which are not keys of `data`."""
    path, place = error["loc"], []
    for n, part in enumerate(path):
        inside = isinstance(data, Mapping) and part in data
        if inside or (isinstance(data, (list, tuple)) and part in range(len(data))):
            data = data[part]
        elif not (n == len(path) - 1 and error["type"] in (*MISSING, *UNKNOWN)):
            data = None if isinstance(data, Mapping) else data
            continue
        place.append(part)
    return tuple(place)


def _expected(error: Any) -> str:
    kind, context = error["type"], error.get("ctx", {})
    text: str = error["msg"].removeprefix("Value error, ")
    if kind in KINDS:
        return KINDS[kind]
    if kind in BOUNDS:
        name, words = BOUNDS[kind]
        value = context[name]
        whole = isinstance(value, float) and value.is_integer() and abs(value) < 1e15
        stated = words.format(in_words(int(value) if whole else value))
        return stated.replace(" 1 items", " 1 item").replace(" 1 characters", " 1 character")
    if kind == "string_pattern_mismatch":
        pattern = context["pattern"]
        return PATTERNS.get(pattern, f"text that matches the regular expression {pattern}")
    if kind == "json_invalid":
        is_deep = "recursion" in context["error"]
        return "lists and sections in fewer levels" if is_deep else "text without lone surrogates"
    if kind in OWN:
        return text
    text = text.removeprefix("Input should be ")  # no type that our models use
    return text[:1].lower() + text[1:]
