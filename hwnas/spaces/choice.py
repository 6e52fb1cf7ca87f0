"""The choices of a search space, checked at construction."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from hwnas.core.errors import UserError
from hwnas.core.text import in_words

__all__ = [
    "Choice",
    "Codes",
    "Role",
    "Value",
    "ascending",
    "check_allowed",
    "check_choices",
    "count_archs",
]

Role = Literal["resolution", "width", "depth", "kernel", "expand", "se", "op"]
Value = int | float | str
Number = TypeVar("Number", int, float)
MAX_VALUES = 1 << 15  # maximum for codes, which are int16

Codes = NDArray[np.int16]
"""Codes of n archs: int16 [n, d], one column per choice."""


@dataclass(frozen=True)
class Choice:
    """One decision: a code is an index into `values`.

    values: numbers in ascending order, or names of operators in any order.
    parent: column of an earlier choice of the space. A choice with a parent is active only if the
        code of the parent is in `parent_codes`.

    Raises:
        UserError: no name, no values or over 32,768, duplicate or unsorted values, or a parent
            without codes.
    """

    name: str
    role: Role
    values: tuple[Value, ...]
    parent: int | None = None
    parent_codes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.name:
            raise self._error("a choice has no name", "a name", repr(self.name), "give it a name")
        if not self.values:
            raise self._error(
                "a choice has no values",
                "at least one value",
                "none",
                "add a value, or omit the choice",
            )
        if len(self.values) > MAX_VALUES:
            most = f"at most {MAX_VALUES:,}"
            raise self._error("a choice has too many values", most, len(self.values), "give fewer")
        if len(set(self.values)) != len(self.values):
            raise self._error(
                "a choice has a value twice", "different values", self.values, "remove the copies"
            )
        are_names = {isinstance(value, str) for value in self.values}
        if len(are_names) > 1:
            raise self._error(
                "a choice mixes numbers and names",
                "only numbers or only names",
                self.values,
                "turn the numbers into text",
            )
        numbers = () if True in are_names else self.values
        if any(low > high for low, high in pairwise(numbers)):  # type: ignore[operator]
            raise self._error(
                "numbers of a choice are not in order", "ascending", self.values, "sort them"
            )
        if (self.parent is None) != (not self.parent_codes):
            raise self._error(
                "a choice has only one of `parent` and `parent_codes`",
                "both, or neither",
                f"parent {self.parent}, parent_codes {self.parent_codes}",
                "give both; a choice that is always active has neither",
            )
        if len(set(self.parent_codes)) != len(self.parent_codes):
            raise self._error(
                "`parent_codes` of a choice has a code twice",
                "different codes",
                self.parent_codes,
                "remove the copies",
            )

    def _error(self, message: str, expected: str, found: object, fix: str) -> UserError:
        where = f"choice {self.name or self.role}"
        return UserError(message, expected=expected, found=found, where=where, fix=fix)


def ascending(values: Iterable[Number]) -> tuple[Number, ...]:
    """Sorted numbers without duplicates; whole numbers become integers."""
    found = {int(value) if value == int(value) else value for value in values}
    return tuple(sorted(found))


def check_choices(choices: Sequence[Choice], resolutions: tuple[int, ...], *, where: str) -> None:
    """Refuses choices that contradict each other.

    Raises:
        UserError: the first choice is not the resolution, two choices have the same name, or a
            parent is not an earlier choice with these codes.
    """
    first = choices[0] if choices else None
    if first is None or first.parent is not None or first.values != resolutions:
        raise UserError(
            "the first choice of a space must be its resolution",
            expected=f"a choice with the values {resolutions} and without a parent",
            found=first or "no choices",
            where=where,
            fix="begin `choices()` with Choice('resolution', 'resolution', self.resolutions)",
        )
    columns: dict[str, int] = {}
    for column, choice in enumerate(choices):
        place = f"choice {choice.name}, column {column} of {where}"
        if choice.name in columns:
            raise UserError(
                "two choices have the same name",
                expected="a unique name for every choice",
                found=f"columns {columns[choice.name]} and {column}",
                where=place,
                fix="rename one of them",
            )
        columns[choice.name] = column
        if choice.parent is None:
            continue
        if not 0 <= choice.parent < column:
            raise UserError(
                "the parent of a choice must come before it",
                expected=f"`parent`: the number of an earlier choice, from 0 to {column - 1}",
                found=f"`parent`: {choice.parent}",
                where=place,
                fix="put the parent first in `choices()`",
            )
        n_codes = len(choices[choice.parent].values)
        if not all(0 <= code < n_codes for code in choice.parent_codes):
            raise UserError(
                "a choice depends on codes that its parent does not have",
                expected=f"codes from 0 to {n_codes - 1}",
                found=f"codes {in_words(choice.parent_codes)}",
                where=place,
                fix="give indices into the values of the parent, not the values",
            )


def check_allowed(
    choices: Sequence[Choice], allowed: Sequence[tuple[int, ...]], *, where: str
) -> None:
    """Refuses allowed codes that are not an ascending subset of the codes of each choice.

    Raises:
        UserError: names the choice.
    """
    if len(allowed) != len(choices):
        raise UserError(
            "`allowed` must have one entry per choice",
            expected=f"{len(choices)} entries",
            found=f"{len(allowed)} entries",
            where=where,
            fix="use SearchSpace.restrict, which takes values",
        )
    for choice, codes in zip(choices, allowed, strict=True):
        last = len(choice.values) - 1
        is_ascending = all(low < high for low, high in pairwise(codes))
        if not codes or not is_ascending or codes[0] < 0 or codes[-1] > last:
            raise UserError(
                "the allowed codes of a choice do not fit it",
                expected=f"some of the codes 0 to {last}, ascending, each once",
                found=f"the codes {in_words(codes)}",
                where=f"choice {choice.name} of {where}",
                fix="use SearchSpace.restrict, which takes values",
            )


def count_archs(choices: Sequence[Choice], allowed: Sequence[tuple[int, ...]]) -> int:
    """Exact number of canonical rows of codes; a choice that is inactive counts as one value."""
    children: dict[int | None, list[int]] = {}
    for column, choice in enumerate(choices):
        children.setdefault(choice.parent, []).append(column)

    def count(column: int) -> int:
        total = 0
        for code in allowed[column]:
            product = 1
            for child in children.get(column, []):
                if code in choices[child].parent_codes:
                    product *= count(child)
            total += product
        return total

    return math.prod(count(column) for column in children[None])
