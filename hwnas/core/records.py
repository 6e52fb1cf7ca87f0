"""Frozen dataclasses to JSON and back. Unknown keys, wrong types and wrong versions are errors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from hwnas.core.confined import holds
from hwnas.core.errors import UserError
from hwnas.core.store import canonical_json, json_text, read_json, sealed, write_text

__all__ = [
    "SCHEMA_VERSION",
    "STRICT",
    "Count",
    "Milliseconds",
    "NotNegative",
    "Positive",
    "Rank",
    "RecordFile",
    "Share",
    "dump",
    "load",
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
"""Types of numbers in records: a count, a share, a cost, a latency, a rank correlation."""

T = TypeVar("T")


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
) -> T:
    """Builds a `cls` from a JSON value; checks names, types and version (up to `newest`).

    Raises:
        UserError: the value does not fit; names every invalid key.
    """
    if not isinstance(data, dict):
        raise UserError(
            f"not a {cls.__name__}",
            expected="a JSON object",
            found=type(data).__name__,
            where=where,
        )
    if versioned:
        version = data.get("schema_version")
        if isinstance(version, bool) or not isinstance(version, int) or version < 1:
            raise UserError(
                f"not a {cls.__name__}: no valid schema_version",
                expected="an integer of 1 or more",
                found=repr(version),
                where=where,
            )
        if version > newest:
            raise UserError(
                f"{cls.__name__} was written by a newer hwnas",
                expected=f"schema_version <= {newest}",
                found=version,
                where=where,
                fix="upgrade hwnas",
            )
        data = {key: value for key, value in data.items() if key != "schema_version"}
    try:
        adapter: TypeAdapter[T] = _adapter(cls)  # type: ignore[arg-type]  # a class is hashable
        return adapter.validate_json(canonical_json(data))
    except ValidationError as error:
        found = "; ".join(
            f"{'.'.join(str(part) for part in problem['loc']) or '(root)'}: {problem['msg']}"
            for problem in error.errors()[:8]
        )
        raise UserError(f"not a valid {cls.__name__}", found=found, where=where) from error
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(f"not a valid {cls.__name__}", found=str(error), where=where) from error


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
            expected=f"`check: {row['check']}`, and the layout that hwnas writes",
            found=f"`check: {data['check']}`",
            where=path,
            fix="put back a copy of this file, or remove it",
        )
    return plain


@dataclass(frozen=True)
class RecordFile(Generic[T]):
    """A JSON file with one record of class `kind`.

    is_sealed: the file contains a hash of itself. Files of earlier versions contain none.
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
        return load(self.kind, data, where=self.path)

    def read_if_there(self) -> T | None:
        """Reads the record; None if there is no file."""
        return self.read() if self.path.exists() else None

    def write(self, value: T) -> None:
        """Replaces the file atomically."""
        write_text(self.path, self.text(value))

    def text(self, value: T) -> str:
        """The content of the file for a record."""
        return json_text(sealed(dump(value)) if self.is_sealed else dump(value))
