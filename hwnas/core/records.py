"""Frozen dataclasses to JSON and back. Unknown keys, wrong types and wrong versions are errors."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from hwnas.core.confined import holds
from hwnas.core.errors import UserError, parts_of
from hwnas.core.expected import MISSING, UNKNOWN, Problem, problems_of
from hwnas.core.store import (
    REARRANGED,
    SEALED,
    UNSEALED,
    canonical_json,
    json_text,
    read_json,
    sealed,
    write_text,
)
from hwnas.core.text import in_words, kind_of

__all__ = [
    "SCHEMA_VERSION",
    "STRICT",
    "Count",
    "Milliseconds",
    "NewerVersion",
    "NotNegative",
    "Positive",
    "Rank",
    "RecordFile",
    "Share",
    "dump",
    "load",
    "require_known_version",
    "sparse",
]

SCHEMA_VERSION = 1
"""Version written into a record, unless its kind has its own version.

Older versions stay loadable; newer ones are refused.
"""

STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
"""Set `__pydantic_config__ = STRICT` in a record class to validate it when loaded."""

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, le=1e300)]
NotNegative = Annotated[float, Field(ge=0, le=1e300)]
Milliseconds = Annotated[float, Field(gt=0, le=999_999_999)]
Rank = Annotated[float, Field(ge=-1, le=1)]
Count = Annotated[int, Field(ge=0)]
"""Number types for fields of records; `Rank` is a rank correlation."""

T = TypeVar("T")


class NewerVersion(UserError):
    """The file was written by a newer hwnas. It is not damaged, so it must not be replaced."""


def require_known_version(
    data: object, *, where: object, what: str, newest: int = SCHEMA_VERSION
) -> None:
    """Refuses JSON objects whose `schema_version` is a whole number above `newest`.

    Call it before other checks: a newer version can have other keys and other hashes.

    Raises:
        NewerVersion: the version is above `newest`.
    """
    version = data.get("schema_version") if isinstance(data, Mapping) else None
    if type(version) is int and version > newest:
        raise NewerVersion(
            f"the {what} was written by a newer hwnas",
            expected=f"`schema_version`: at most {newest}",
            found=f"`schema_version`: {version}",
            where=where,
            fix="upgrade hwnas",
        )


def dump(record: Any, *, versioned: bool = True, version: int = SCHEMA_VERSION) -> dict[str, Any]:
    """A dataclass record as a dict of JSON values; `schema_version` comes first if `versioned`."""
    if not is_dataclass(record) or isinstance(record, type):
        raise TypeError(f"expected a dataclass record, found {type(record).__name__}")
    head: dict[str, Any] = {"schema_version": version} if versioned else {}
    return head | {
        field.name: _plain(getattr(record, field.name), partial(dump, versioned=False))
        for field in fields(record)
    }


def sparse(record: Any) -> dict[str, Any]:
    """`dump` without fields at their default, so that new fields do not change the result."""
    return {
        field.name: _plain(value, sparse)
        for field in fields(record)
        if (value := getattr(record, field.name)) != field.default
    }


def _plain(value: Any, form: Callable[[Any], dict[str, Any]]) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return form(value)
    if isinstance(value, (tuple, list)):
        return [_plain(item, form) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item, form) for key, item in value.items()}
    return value


@cache
def _adapter(cls: Any) -> TypeAdapter[Any]:
    return TypeAdapter(cls)


def load(
    cls: type[T],
    data: Any,
    *,
    where: object,
    versioned: bool = True,
    newest: int = SCHEMA_VERSION,
    what: str = "",
) -> T:
    """Builds a `cls` from a JSON value; checks names, types and version (up to `newest`).

    what: what errors call the value; default: the name of the class, split into words.

    Raises:
        UserError: the value does not fit; names every invalid key.
    """
    what = what or re.sub(r"\B([A-Z])", r" \1", cls.__name__.strip("_")).lower()
    if not isinstance(data, dict):
        raise UserError(
            f"not a valid {what}",
            expected="a JSON object",
            found=kind_of(data),
            where=where,
        )
    if versioned:
        version = data.get("schema_version")
        if isinstance(version, bool) or not isinstance(version, int) or version < 1:
            raise UserError(
                f"not a valid {what}",
                expected="`schema_version`: a whole number of at least 1",
                found=f"`schema_version`: {in_words(version)}",
                where=where,
            )
        require_known_version(data, where=where, what=what, newest=newest)
        data = {key: value for key, value in data.items() if key != "schema_version"}
    try:
        adapter: TypeAdapter[T] = _adapter(cls)  # type: ignore[arg-type]  # a class is hashable
        return adapter.validate_json(canonical_json(data))
    except ValidationError as error:
        parts = [_parts(problem) for problem in problems_of(error.errors(), data)[:8]]
        stated = {
            part: "; ".join(dict.fromkeys(row[part] for row in parts if part in row))
            for part in ("expected", "found")
            if any(part in row for row in parts)
        }
        raise UserError(f"not a valid {what}", **stated, where=where) from error
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(f"not a valid {what}", **parts_of(error), where=where) from error


def _parts(problem: Problem) -> dict[str, str]:
    """The arguments `expected` and `found` of an error, from a problem of pydantic."""
    key, given = ".".join(str(part) for part in problem.place), problem.given
    if problem.kind in MISSING:
        return {"expected": f"the key `{key}`", "found": f"no key `{key}`"}
    if problem.kind in UNKNOWN:
        return {"expected": "only known keys", "found": f"the unknown key `{key:.80}`"}
    at = f"`{key:.200}`: " if key else ""
    stated = {"expected": problem.expected} if problem.error is None else parts_of(problem.error)
    if isinstance(given, Mapping):  # only the values that the text is about
        words = set(re.findall(r"\w+", problem.expected))
        given = {name: value for name, value in given.items() if name in words}
    if "found" not in stated:
        stated["found"] = _shortened(repr(given) if isinstance(given, str) else in_words(given))
    return {part: at + value for part, value in stated.items()}


def _shortened(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:80]} ..."


def _sealed_data(path: Path) -> Any:
    """`read_json` without the hash `check` that `sealed` added; earlier versions wrote none.

    Raises:
        UserError: as `read_json`, or a byte of the file was modified.
    """
    data = read_json(path)
    if not isinstance(data, dict) or "check" not in data:
        return data
    plain = {key: value for key, value in data.items() if key != "check"}
    if not holds(path, json_text(row := sealed(plain)).encode()):
        raise UserError(
            "a file was modified",
            expected=SEALED,
            found=UNSEALED if data["check"] != row["check"] else REARRANGED,
            where=path,
            fix="put back a copy of this file, or remove it",
        )
    return plain


@dataclass(frozen=True)
class RecordFile(Generic[T]):
    """A JSON file with one record of class `kind`.

    is_sealed: whether the file stores a hash of its content. Files of earlier versions have none.
    """

    path: Path
    kind: type[T]
    is_sealed: bool = False

    def read(self) -> T:
        """Reads the record.

        Raises:
            UserError: the file is missing, has other content, or was modified.
        """
        data = _sealed_data(self.path) if self.is_sealed else read_json(self.path)
        return load(self.kind, data, where=self.path, what=f"file {self.path.name}")

    def read_if_there(self) -> T | None:
        """Reads the record; None if there is no file."""
        return self.read() if self.path.exists() else None

    def write(self, value: T) -> None:
        """Replaces the file atomically."""
        write_text(self.path, self.text(value))

    def text(self, value: T) -> str:
        """The content of the file for a record."""
        return json_text(sealed(dump(value)) if self.is_sealed else dump(value))
