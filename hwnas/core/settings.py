"""Lists every setting of the pydantic models: key, type, default, range."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from hwnas.core.config import RETIRED
from hwnas.core.registry import Registry

__all__ = ["Setting", "retired_keys", "settings_of"]

_NAMES = {
    int: "whole number",
    float: "number",
    str: "text",
    bool: "true or false",
    Path: "path",
    type(None): "null",
    Any: "anything",
}
_BOUNDS = {"ge": ">= {}", "gt": "> {}", "le": "<= {}", "lt": "< {}"}
_LENGTHS = {"min_length": "at least {}", "max_length": "at most {}"}


@dataclass(frozen=True)
class Setting:
    """One leaf of the configuration.

    key: its path, e.g. `search.searcher.population`; an item of a list is `N`.
    variants: names of the variants that have the setting, outermost first, e.g. `("evolution",)`;
        empty if it always exists.
    default: as YAML on one line; None if the setting is required.
    """

    key: str
    variants: tuple[str, ...]
    type: str
    default: str | None
    range: str
    meaning: str


def settings_of(
    model: type[BaseModel], *, below: str = "", variants: tuple[str, ...] = ()
) -> Iterator[Setting]:
    """The settings of a section and of all its variants, in the order of the fields.

    below: key path of the section.
    """
    for name, field in model.model_fields.items():
        if RETIRED in field.metadata:
            continue
        key = f"{below}.{name}" if below else name
        registry = _registry(field)
        if registry is not None:
            inner = f"{key}.N" if _is_list(field.annotation) else key
            yield _setting(key, field, variants, registry)
            for variant in registry.names:
                config: type[BaseModel] = registry.declaration(variant).Config
                for found in settings_of(config, below=inner, variants=(*variants, variant)):
                    if found.key != f"{inner}.name":
                        yield found
            continue
        sections = _sections(field.annotation)
        for section in sections:
            inner = f"{key}.N" if _is_list(field.annotation) else key
            yield from settings_of(section, below=inner, variants=variants)
        if not sections:
            yield _setting(key, field, variants, None)


def retired_keys(model: type[BaseModel], *, below: str = "") -> Iterator[str]:
    """Key paths of the fields marked `RETIRED`, which have no effect."""
    for name, field in model.model_fields.items():
        key = f"{below}.{name}" if below else name
        if RETIRED in field.metadata:
            yield key
        for section in _sections(field.annotation):
            yield from retired_keys(section, below=key)


def _registry(field: FieldInfo) -> Registry[Any] | None:
    """The registry from which a field, or an item of its list, chooses variants."""
    candidates = list(field.metadata)
    for part in _alternatives(field.annotation):
        candidates += getattr(part, "__metadata__", ())
    if _is_list(field.annotation):
        candidates += getattr(get_args(field.annotation)[0], "__metadata__", ())
    return next((item for item in candidates if isinstance(item, Registry)), None)


def _is_list(annotation: Any) -> bool:
    return any(get_origin(part) is tuple for part in _alternatives(annotation))


def _alternatives(annotation: Any) -> list[Any]:
    """The members of a union; for other types the annotation itself."""
    is_union = get_origin(annotation) in (Union, UnionType)
    return [*get_args(annotation)] if is_union else [annotation]


def _sections(annotation: Any) -> list[type[BaseModel]]:
    """The models that a field contains, directly or in a list."""
    found: list[type[BaseModel]] = []
    for part in _alternatives(annotation):
        part = get_args(part)[0] if get_origin(part) is tuple else part
        part = get_args(part)[0] if get_origin(part) is Annotated else part
        for one in _alternatives(part):
            if isinstance(one, type) and issubclass(one, BaseModel):
                found.append(one)
    return found


def _setting(
    key: str, field: FieldInfo, variants: tuple[str, ...], registry: Registry[Any] | None
) -> Setting:
    if registry is None:
        kind, bounds = _type(field.annotation), _range(field.metadata, field.annotation)
    else:
        kind = "name, or section with `name`"
        kind = f"list of: {kind}" if _is_list(field.annotation) else kind
        bounds = ", ".join(registry.names)
    return Setting(key, variants, kind, _default(field), bounds, field.description or "")


def _default(field: FieldInfo) -> str | None:
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is PydanticUndefined:
        return None
    if isinstance(value, tuple) and len(value) > 8:
        return f"[{value[0]}, {value[1]}, ..., {value[-1]}]"
    return json.dumps(value, default=_plain)


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else str(value)


def _type(annotation: Any) -> str:
    """The type in words: `list of whole numbers`, `soft or hard`, `number or null`."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(inner[0])
    if origin is Literal:
        return " | ".join(json.dumps(value).strip('"') for value in inner)
    if origin in (Union, UnionType):
        return " or ".join(map(_type, inner))
    if origin is tuple:
        return f"list of {_type(inner[0])}"
    if origin is dict:
        return f"{_type(inner[1])} by {_type(inner[0])}"
    return _NAMES.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _range(metadata: list[Any], annotation: Any) -> str:
    """The allowed values, from the annotations of a field and of the items of its list."""
    lengths = _said(metadata, _LENGTHS)
    found = _said(metadata, _BOUNDS) + [f"length {' and '.join(lengths)}"] * bool(lengths)
    found += _said(metadata, {"pattern": "matches {}"})
    for part in _alternatives(annotation):
        if get_origin(part) is tuple:
            part = get_args(part)[0]
            inner = _range([], part)
            found += [f"each {inner}"] * bool(inner)
        elif get_origin(part) is Annotated:
            base, *more = get_args(part)
            inner = _range(_flat(more), base)
            found += [inner] * bool(inner)
    return ", ".join(found)


def _said(metadata: list[Any], forms: Mapping[str, str]) -> list[str]:
    """The attributes of annotations, in words."""
    return [
        form.format(value)
        for item in metadata
        for name, form in forms.items()
        if (value := getattr(item, name, None)) is not None
    ]


def _flat(metadata: list[Any]) -> list[Any]:
    """The annotations, including those inside a `Field`."""
    return [
        inner
        for item in metadata
        for inner in (item.metadata if isinstance(item, FieldInfo) else (item,))
    ]
