"""One decision of a search space, checked when it is made."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from hwnas.core.errors import UserError

__all__ = ["Choice", "Role", "Value"]

Role = Literal["resolution", "width", "depth", "kernel", "expand", "op"]
Value = int | float | str


@dataclass(frozen=True)
class Choice:
    """One decision: a code is an index into `values`.

    values: numbers in ascending order, or names of operators in any order. A choice with a `parent`
    (the column of an earlier choice of the space) is active only where the parent's code is one of
    `parent_codes`.

    Raises:
        UserError: no name, no values, values that are equal or not in order, or a parent without
            codes.
    """

    name: str
    role: Role
    values: tuple[Value, ...]
    parent: int | None = None
    parent_codes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.name:
            raise self._error("a choice has a name", "a name", repr(self.name), "name it")
        if not self.values:
            raise self._error(
                "a choice has values", "at least one value", "none", "give a value, or no choice"
            )
        if len(set(self.values)) != len(self.values):
            raise self._error(
                "a choice has a value twice", "different values", self.values, "remove the copies"
            )
        are_names = {isinstance(value, str) for value in self.values}
        if len(are_names) > 1:
            raise self._error(
                "a choice mixes numbers and names", "only numbers or only names", self.values, None
            )
        numbers = () if True in are_names else self.values
        if any(low > high for low, high in pairwise(numbers)):  # type: ignore[operator]
            raise self._error(
                "numbers of a choice are not in order", "ascending", self.values, "sort them"
            )
        if (self.parent is None) != (not self.parent_codes):
            raise self._error(
                "a parent and its codes go together",
                "both `parent` and `parent_codes`, or neither",
                f"parent {self.parent}, parent_codes {self.parent_codes}",
                None,
            )
        if len(set(self.parent_codes)) != len(self.parent_codes):
            raise self._error(
                "a choice has a parent's code twice", "different codes", self.parent_codes, None
            )

    def _error(self, message: str, expected: str, found: object, fix: str | None) -> UserError:
        where = f"choice {self.name or self.role}"
        return UserError(message, expected=expected, found=found, where=where, fix=fix)
