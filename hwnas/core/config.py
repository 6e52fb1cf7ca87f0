"""Validates plain data with strict pydantic models; reports all problems with key path and fix.

Sections that select a variant (`searcher: {name: evolution, ...}`) are annotated with
`variant(registry)`. It validates the other keys with the `Config` model of the selected module.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import PurePath
from typing import Annotated, Any, TypeVar, get_type_hints

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    GetJsonSchemaHandler,
    SerializeAsAny,
    ValidationError,
    WithJsonSchema,
)
from pydantic_core import CoreSchema, PydanticCustomError

from hwnas.core.errors import UserError
from hwnas.core.json_data import MAX_INT
from hwnas.core.problems import explain
from hwnas.core.registry import Registry
from hwnas.core.yaml_data import parse_yaml

__all__ = [
    "BESIDE",
    "LATER",
    "NUMBER",
    "RETIRED",
    "StrictModel",
    "assignments",
    "build_model",
    "override",
    "settled",
    "variant",
]

LATER = "added later"
"""Marks a field that was added to a section later (`Annotated[int, LATER]`): see `settled`."""

RETIRED = WithJsonSchema({"deprecated": True})
"""Marks a field that has no effect any more. It stays in files and hashes, but is not listed."""

BESIDE = "relative to the file that names it"
"""Marks a path that is relative to its own file (`Annotated[str | None, BESIDE]`)."""
MAX_SHOWN = 20  # problems of a configuration; similar names for thousands of keys take minutes

Model = TypeVar("Model", bound=BaseModel)


def _refuse_truth_value(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("must be a number, not true or false")
    return value


NUMBER = BeforeValidator(_refuse_truth_value)
"""Marks `Literal` fields of numbers, so that `true` is not accepted as 1."""


class StrictModel(BaseModel):
    """Base of every configuration section: frozen, no unknown keys, no NaN, no type conversion."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        protected_namespaces=(),
        use_attribute_docstrings=True,
    )

    @classmethod
    def removed(cls) -> tuple[str, ...]:
        """Removed keys of earlier versions. Each had one valid value, which files may still set."""
        return ()

    def removed_values(self) -> dict[str, Any]:
        """The only valid value of each removed key, which stays in the hashes."""
        return {}


def settled(section: BaseModel) -> dict[str, Any]:
    """JSON of a section, for hashes and comparisons of the settings of a result.

    It omits `LATER` fields at their default and adds removed keys: earlier results stay valid.
    """
    plain = section.model_dump(mode="json")
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if LATER in field.metadata and value == field.default:
            del plain[name]
        elif isinstance(value, BaseModel):
            plain[name] = settled(value)
        elif isinstance(value, tuple) and any(isinstance(item, BaseModel) for item in value):
            plain[name] = [settled(item) for item in value]
        elif isinstance(value, tuple) and any(map(is_dataclass, value)):
            plain[name] = [_settled_record(*pair) for pair in zip(value, plain[name], strict=True)]
    if isinstance(section, StrictModel):
        plain |= section.removed_values()
    return plain


def _settled_record(record: Any, plain: dict[str, Any]) -> dict[str, Any]:
    """JSON of a dataclass without fields that are marked `LATER` and have their default."""
    hints = get_type_hints(type(record), include_extras=True)
    later = {name for name, hint in hints.items() if LATER in getattr(hint, "__metadata__", ())}
    defaults = {field.name: field.default for field in fields(record)}
    return {
        name: value
        for name, value in plain.items()
        if not (name in later and getattr(record, name) == defaults[name])
    }


def variant(registry: Registry[Any]) -> Any:
    """Annotation of a section `{name: X, ...}` that `X.Config` from `registry` validates."""

    def choose(value: Any) -> BaseModel:
        if isinstance(value, BaseModel):
            return value
        if isinstance(value, str):
            value = {"name": value}
        if not isinstance(value, dict) or not isinstance(value.get("name"), str):
            raise PydanticCustomError(
                "variant", "expected a section with `name:`, one of {names}", _names(registry)
            )
        try:
            config: type[BaseModel] = registry.load(value["name"]).Config
        except UserError as error:
            raise PydanticCustomError("variant", "{text}", {"text": str(error)}) from error
        return _validate(config, value)

    return Annotated[SerializeAsAny[BaseModel], BeforeValidator(choose), registry, _OneOf(registry)]


@dataclass(frozen=True)
class _OneOf:
    """The JSON Schema of a section that selects a variant: one of their schemas, or a name."""

    registry: Registry[Any]

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        names = self.registry.names
        configs = [self.registry.declaration(name).Config for name in names]
        sections = [handler(config.__pydantic_core_schema__) for config in configs]
        return {"anyOf": [{"type": "string", "examples": list(names)}, *sections]}


def _names(registry: Registry[Any]) -> dict[str, Any]:
    return {"names": ", ".join(registry.names)}


def assignments(texts: Sequence[str]) -> dict[str, Any]:
    """Parses texts `key.path=YAML value` of a command line to changes for `override`.

    Raises:
        UserError: a text is malformed.
    """
    changes: dict[str, Any] = {}
    for text in texts:
        path, equals, value = text.partition("=")
        if not equals or not path:
            raise UserError("malformed --set", expected="key.path=value", found=text)
        changes.pop(path, None)  # for a repeated path, the last value counts, in its place
        changes[path] = parse_yaml(f"value: {value}", where=f"--set {text}").get("value")
    return changes


def override(data: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of `data` with values set by key path, e.g. `{"train.steps": 50}`, in order.

    Items of lists are addressed by number: `search.constraints.0.max`. Values must be representable
    in YAML; paths and numpy numbers are converted to text and numbers.

    Raises:
        UserError: a path leads through a value that is not a container, or a value has another
            type.
    """
    result: dict[str, Any] = copy.deepcopy(data)
    for path, given in _checked_changes(changes).items():
        value = _plain(given, path)
        *parents, last = path.split(".")
        target: Any = result
        for parent in parents:
            target = _step(target, parent, path)
        if isinstance(target, dict):
            target[last] = value
        elif (position := _position(target, last)) is not None:
            target[position] = value
        else:
            raise UserError("the key path goes through a value that has no keys", where=path)
    return result


def _checked_changes(changes: Any) -> Mapping[str, Any]:
    if not isinstance(changes, Mapping) or not all(isinstance(path, str) for path in changes):
        raise UserError(
            "settings are given by key path",
            expected='a mapping such as {"train.steps": 50}',
            found=repr(changes)[:80],
        )
    return changes


def _plain(value: Any, path: str) -> Any:
    """A copy of a value, converted to the types of YAML."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item, f"{path}.{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, path) for item in value]
    if isinstance(value, PurePath):
        return str(value)
    if callable(item := getattr(value, "item", None)):  # numpy scalar
        value = item()
    if value is not None and not isinstance(value, (bool, int, float, str)):
        raise UserError(
            "a setting has an unsupported type",
            expected="null, a number, text, a list or a mapping",
            found=repr(value)[:80],
            where=path,
        )
    if isinstance(value, int) and not -MAX_INT - 1 <= value <= MAX_INT:
        raise UserError("an integer of more than 64 bits", where=path)
    return value


def _position(target: Any, key: str) -> int | None:
    """Index of the list item that one part of a key path addresses; None if it addresses none."""
    if not isinstance(target, list) or not re.fullmatch("[0-9]{1,9}", key):
        return None
    return position if (position := int(key)) < len(target) else None


def _step(target: Any, key: str, path: str) -> Any:
    if isinstance(target, dict):
        if target.get(key) is None:
            target[key] = {}
        elif isinstance(target[key], str):
            target[key] = {"name": target[key]}  # `searcher: random` is short for a section
        return target[key]
    if (position := _position(target, key)) is not None:
        return target[position]
    raise UserError("the key path goes through a value that has no keys", found=key, where=path)


def build_model(model: type[Model], data: dict[str, Any], *, where: object) -> Model:
    """Validates `data` into `model`. Lists become tuples; no other type is converted.

    Raises:
        UserError: lists up to 20 problems with key paths, and similar names for unknown keys.
    """
    try:
        return _validate(model, data)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        lines = [explain(problem, model, data) for problem in problems[:MAX_SHOWN]]
        lines += [f"... and {n:,} more" for n in [len(problems) - MAX_SHOWN] if n > 0]
        raise UserError(
            f"{len(problems):,} problem{'s' * (len(problems) > 1)} in the config",
            found="".join(f"\n    {line}" for line in lines),
            where=where,
        ) from error


def _validate(model: type[Model], data: dict[str, Any]) -> Model:
    """Strict validation in JSON mode: lists become tuples, but "3" never becomes 3."""
    removed: dict[tuple[str, ...], Any] = {}
    built = model.model_validate_json(json.dumps(_take_removed(model, data, (), removed)))
    for keys, value in removed.items():
        *path, key = keys
        section: Any = built
        for name in path:
            section = getattr(section, name)
        expected = section.removed_values()[key]
        if value != expected:
            raise UserError(
                "this setting was removed",
                expected=f"{expected!r}, the only value that is still accepted, or no such key",
                found=repr(value),
                where=".".join(keys),
            )
    return built


def _take_removed(
    model: type[BaseModel], data: Any, path: tuple[str, ...], removed: dict[tuple[str, ...], Any]
) -> Any:
    """Removes keys of earlier versions from `data`; their values go into `removed`, by path."""
    if not (isinstance(data, dict) and issubclass(model, StrictModel)):
        return data
    kept = {}
    for key, value in data.items():
        if key in model.removed():
            full = (*path, key)
            removed[full] = value
            continue
        field = model.model_fields.get(key)
        inner = None if field is None else field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            value = _take_removed(inner, value, (*path, key), removed)
        kept[key] = value
    return kept
