"""Validates plain data with strict pydantic models; reports all problems with key path and fix.

Sections that select a variant (`searcher: {name: evolution, ...}`) are annotated with
`variant(registry)`. It validates the other keys with the `Config` model of the selected module.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, fields, is_dataclass
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

from hwnas.core.errors import Invalid, UserError
from hwnas.core.expected import problems_of
from hwnas.core.problems import explain
from hwnas.core.registry import Registry
from hwnas.core.text import in_words

__all__ = [
    "BESIDE",
    "LATER",
    "NUMBER",
    "RETIRED",
    "StrictModel",
    "build_model",
    "settled",
    "variant",
]

LATER = "added later"
"""Marks a field that was added to a section later (`Annotated[int, LATER]`): see `settled`."""

RETIRED = WithJsonSchema({"deprecated": True})
"""Marks a field that has no effect any more. It stays in files and hashes, but is not listed."""

BESIDE = "relative to the file that names it"
"""Marks a path that is relative to the file that contains it (`Annotated[str | None, BESIDE]`)."""
MAX_SHOWN = 20  # problems of a configuration; similar names for thousands of keys take minutes

Model = TypeVar("Model", bound=BaseModel)


def _refuse_truth_value(value: object) -> object:
    if isinstance(value, bool):
        raise Invalid("a number", in_words(value))
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
        """The only valid value of each removed key. Hashes still contain the key and this value."""
        return {}


def settled(section: BaseModel) -> dict[str, Any]:
    """The values of a section as JSON, for hashes and for comparing settings.

    A field marked `LATER` is left out while it has its default value. Keys that earlier versions
    had (`removed_values`) are written with their only valid value. So hashes of earlier versions
    stay valid.
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
    """JSON of a dataclass; a field marked `LATER` is left out while it has its default value."""
    hints = get_type_hints(type(record), include_extras=True)
    later = {name for name, hint in hints.items() if LATER in getattr(hint, "__metadata__", ())}
    defaults = {field.name: field.default for field in fields(record)}
    return {
        name: value
        for name, value in plain.items()
        if not (name in later and getattr(record, name) == defaults[name])
    }


def variant(registry: Registry[Any]) -> Any:
    """Annotation of a section `{name: X, ...}` that `X.Config` from `registry` validates.

    The optional packages of X need not be installed, so that a run folder opens on any machine.
    Code that runs X raises an error with the command that installs them.
    """

    def choose(value: Any) -> BaseModel:
        if isinstance(value, BaseModel):
            return value
        if isinstance(value, str):
            value = {"name": value}
        if not isinstance(value, dict) or not isinstance(value.get("name"), str):
            raise PydanticCustomError(
                "no_variant",
                "expected one of {names}, or a section with such a `name:`",
                _names(registry),
            )
        try:
            config: type[BaseModel] = registry.declaration(value["name"]).Config
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


def build_model(
    model: type[Model], data: dict[str, Any], *, where: object, changes: Iterable[str] = ()
) -> Model:
    """Validates `data` into `model`. Lists become tuples; no other type is converted.

    changes: key paths of values that the command sets; errors about these values name `--set KEY`
        instead of `where`.

    Raises:
        UserError: lists up to 20 problems with key paths, and similar names for unknown keys.
    """
    try:
        return _validate(model, data)
    except ValidationError as error:
        problems = problems_of(error.errors(include_url=False), data)
        lines = [explain(problem, model, data) for problem in problems[:MAX_SHOWN]]
        places = {_given_by(changes, problem.place) or str(where) for problem in problems}
        lines += [f"... and {n:,} more" for n in [len(problems) - MAX_SHOWN] if n > 0]
        raise UserError(
            f"{len(problems):,} problem{'s' * (len(problems) > 1)} in the config",
            found="".join(f"\n    {line}" for line in lines),
            where=", ".join(sorted(places)) if changes else where,
        ) from error


def _given_by(changes: Iterable[str], place: tuple[int | str, ...]) -> str:
    """The options that gave the value at a place, or a part of it; empty: none did."""
    names = [str(part) for part in place]
    keys = {change: change.split(".") for change in changes}
    whole = [change for change, path in keys.items() if path == names[: len(path)]]
    parts = [change for change, path in keys.items() if names and path[: len(names)] == names]
    return ", ".join(f"--set {change}" for change in whole or parts)


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
                expected=f"no such key; only the value {in_words(expected)} is still accepted",
                found=in_words(value),
                where=".".join(keys),
                fix="remove this key",
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
