"""Wrong values are described in our words, never in those of pydantic."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from dataclasses import dataclass, is_dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pytest
from pydantic import BaseModel, Field, TypeAdapter

import hwnas
from hwnas.core.config import NUMBER, StrictModel, build_model
from hwnas.core.errors import UserError
from hwnas.core.expected import BOUNDS, KINDS, PATTERNS
from hwnas.core.records import STRICT, load

# Types of errors that a node of a schema can raise, beside those that its checks raise.
RAISES = {
    "any": (),
    "bool": ("bool_type",),
    "dataclass": ("dataclass_type",),
    "dict": ("dict_type",),
    "float": ("float_type", "finite_number"),
    "int": ("int_type",),
    "list": ("list_type",),
    "literal": ("literal_error",),
    "model": ("model_type",),
    "str": ("string_type",),
    "tuple": ("tuple_type",),
    "typed-dict": ("dict_type",),
}
CHECKS = {
    "gt": "greater_than",
    "ge": "greater_than_equal",
    "lt": "less_than",
    "le": "less_than_equal",
    "multiple_of": "multiple_of",
}
# Nodes that raise nothing of their own, or only a `value_error` of our own checks.
SILENT = {
    *("dataclass-args", "dataclass-field", "default", "definition-ref", "definitions"),
    *("function-after", "function-before", "function-plain", "is-instance", "json-or-python"),
    *("lax-or-strict", "model-field", "model-fields", "no-info", "nullable", "typed-dict-field"),
    "union",
}


@cache
def schemas() -> dict[str, Any]:
    """Schemas of all sections of configurations, and of all records, by the name of the class."""
    found: dict[str, Any] = {}
    root = Path(hwnas.__file__).parent
    for file in sorted(root.rglob("*.py")):
        text = file.read_text(encoding="utf-8")
        declares = any(word in text for word in ("Config(", "StrictModel", "STRICT"))
        if root / "testing" in file.parents or not declares:
            continue
        path = ".".join(["hwnas", *file.relative_to(root).with_suffix("").parts])
        module = importlib.import_module(path.removesuffix(".__init__"))
        for name, kind in vars(module).items():
            if not inspect.isclass(kind) or kind.__module__ != module.__name__:
                continue
            if issubclass(kind, BaseModel):
                found[f"{path}.{name}"] = kind.__pydantic_core_schema__
            elif is_dataclass(kind) and hasattr(kind, "__pydantic_config__"):
                found[f"{path}.{name}"] = TypeAdapter(kind).core_schema
    return found


def nodes(schema: Any) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        if isinstance(schema.get("type"), str):
            yield schema
        for value in schema.values():
            yield from nodes(value)
    elif isinstance(schema, (list, tuple)):
        for value in schema:
            yield from nodes(value)


def raised_by(node: dict[str, Any]) -> set[str]:
    """Types of the errors that a node can raise, without those that hwnas itself writes."""
    kind = node["type"]
    if kind in SILENT:
        return set()
    found = {
        *RAISES[kind],
        *(error for check, error in CHECKS.items() if node.get(check) is not None),
    }
    texts = kind == "str"
    if node.get("min_length") is not None:
        found.add("string_too_short" if texts else "too_short")
    if node.get("max_length") is not None:
        found.add("string_too_long" if texts else "too_long")
    return found


def test_every_error_that_a_schema_can_raise_has_words() -> None:
    unknown, without = {}, {}
    found = schemas()
    assert len(found) > 200
    for name, schema in found.items():
        for node in nodes(schema):
            if node["type"] not in RAISES and node["type"] not in SILENT:
                unknown[node["type"]] = name
                continue
            for error in raised_by(node) - {*KINDS, *BOUNDS}:
                without[error] = name
            pattern = node.get("pattern")
            if pattern is not None and pattern not in PATTERNS:
                without[pattern] = name
    assert not unknown, "nodes of schemas that this test does not know"
    assert not without, "add words to core/expected.py"
    used = {node.get("pattern") for schema in found.values() for node in nodes(schema)}
    assert set(PATTERNS) <= used, "words for a regular expression that no schema has"


class Inner(StrictModel):
    n: int


class Section(StrictModel):
    whole: int = 1
    share: Annotated[float, Field(ge=0, le=1)] = 0.5
    rate: Annotated[float, Field(gt=0, lt=1e6)] = 0.5
    even: Annotated[int, Field(multiple_of=2)] = 2
    flag: bool = True
    text: Annotated[str, Field(min_length=1, max_length=3)] = "a"
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.-]*$")] = "a"
    mine: Annotated[str, Field(pattern="^x$")] = "x"
    some: Annotated[tuple[int, ...], Field(min_length=2, max_length=3)] = (1, 2)
    two: tuple[int, int] = (1, 2)
    shares: dict[str, float] | None = None
    word: Literal["adam", "sgd"] = "sgd"
    size: Annotated[Literal[1, 2], NUMBER] = 1
    file: Path | None = None
    either: int | str = 1
    inner: Inner = Inner(n=1)
    many: tuple[Inner, ...] = ()


@dataclass(frozen=True)
class Part:
    __pydantic_config__: ClassVar[Any] = STRICT

    n: int


@dataclass(frozen=True)
class Record:
    __pydantic_config__: ClassVar[Any] = STRICT

    part: Part
    either: dict[str, int | str] | None = None


WRONG: list[tuple[str, Any, str]] = [
    ("whole", 1.5, "expected a whole number, found 1.5"),
    ("whole", None, "expected a whole number, found null"),
    ("share", "x", "expected a number, found 'x'"),
    ("share", float("nan"), "expected a finite number, found nan"),
    ("share", -1, "expected a number of at least 0, found -1"),
    ("share", 1.5, "expected a number of at most 1, found 1.5"),
    ("rate", 0, "expected a number above 0, found 0"),
    ("rate", 1e6, "expected a number below 1000000, found 1000000.0"),
    ("even", 3, "expected a multiple of 2, found 3"),
    ("flag", 1, "expected true or false, found 1"),
    ("text", 1, "expected text, found 1"),
    ("text", "", "expected text of at least 1 character, found ''"),
    ("text", "abcd", "expected text of at most 3 characters, found 'abcd'"),
    (
        "name",
        "-a",
        "expected letters, digits and the characters . -, starting with a letter or a digit, found"
        " '-a'",
    ),
    ("mine", "y", "expected text that matches the regular expression ^x$, found 'y'"),
    ("some", {"a": 1}, "expected a list, found {a: 1}"),
    ("some", [1], "expected a list with at least 2 items, found [1]"),
    ("some", [1, 2, 3, 4], "expected a list with at most 3 items, found [1, 2, 3, 4]"),
    ("two", [], "expected a list with 2 items, found []"),
    ("shares", [1], "expected keys with values, found [1]"),
    ("word", "adma", "expected 'adam' or 'sgd', found 'adma'"),
    ("size", 3, "expected 1 or 2, found 3"),
    ("size", True, "expected a number, found true"),
    ("file", 1, "expected text, found 1"),
    ("either", 1.5, "expected a whole number, or text, found 1.5"),
    ("inner", 1, "expected keys with values, found 1"),
    ("inner", {}, "inner.n: this key is required, but missing"),
    ("many", [{"n": 1}, {"n": "a"}], "many.1.n: expected a whole number, found 'a'"),
    ("text", "\ud800", "expected text without lone surrogates"),
]


@pytest.mark.parametrize(("key", "value", "line"), WRONG)
def test_a_wrong_value_states_what_is_expected_and_found(key: str, value: Any, line: str) -> None:
    with pytest.raises(UserError) as caught:
        build_model(Section, {key: value}, where="my.yaml")
    line = line if line.startswith(key) or value == "\ud800" else f"{key}: {line}"
    assert str(caught.value) == (
        f"1 problem in the config\n  found: \n    {line}\n  where: my.yaml"
    )


def test_lists_that_are_too_deep_are_refused() -> None:
    deep: list[Any] = []
    for _ in range(300):
        deep = [deep]
    with pytest.raises(UserError, match="expected lists and sections in fewer levels\n  where: w"):
        build_model(Section, {"some": deep}, where="w")


@pytest.mark.parametrize(
    ("data", "expected", "found"),
    [
        ({"part": {"n": "a"}}, "`part.n`: a whole number", "`part.n`: 'a'"),
        ({"part": {}}, "the key `part.n`", "no key `part.n`"),
        ({"part": 1}, "`part`: keys with values", "`part`: 1"),
        ({"part": {"n": 1, "m": 1}}, "only known keys", "the unknown key `part.m`"),
        (
            {"part": {"n": 1}, "either": {"a": 1.5, "b": None}},
            "`either.a`: a whole number, or text; `either.b`: a whole number, or text",
            "`either.a`: 1.5; `either.b`: null",
        ),
    ],
)
def test_a_record_states_what_is_expected_and_found(
    data: dict[str, Any], expected: str, found: str
) -> None:
    with pytest.raises(UserError) as caught:
        load(Record, data, where="x.json", versioned=False)
    assert (caught.value.expected, caught.value.found) == (expected, found)
