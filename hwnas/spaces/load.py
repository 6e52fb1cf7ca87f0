"""Builds a space outside a run folder: by registry name, shipped name or YAML file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from hwnas.core.config import build_model
from hwnas.core.env import user_path
from hwnas.core.errors import UserError, did_you_mean
from hwnas.core.overrides import override
from hwnas.core.resources import resource, resource_names
from hwnas.core.store import read_json
from hwnas.core.text import kind_of
from hwnas.core.yaml_data import read_yaml
from hwnas.spaces import REGISTRY
from hwnas.spaces.arch import Arch
from hwnas.spaces.graphs import is_connected
from hwnas.spaces.space import SearchSpace

__all__ = ["build_space", "read_arch", "require_space", "shipped_spaces", "space_data"]

_FOLDER = "configs/spaces"


def shipped_spaces() -> tuple[str, ...]:
    """Names of the spaces that ship as YAML files."""
    return resource_names(_FOLDER, ".yaml")


def build_space(
    name_or_path: str,
    settings: Mapping[str, Any] | None = None,
    *,
    num_classes: int,
    in_channels: int = 3,
) -> SearchSpace:
    """Builds a registered space, a shipped space, or the space of a YAML file.

    settings: changes by key, e.g. `{"resolutions": [160]}`.

    Raises:
        UserError: unknown space, unreadable file, unknown or invalid settings.
    """
    data = override(space_data(name_or_path), settings or {})
    module = REGISTRY.load(data["name"])
    config = build_model(module.Config, data, where=f"space {name_or_path}")
    return module.build(config, num_classes=num_classes, in_channels=in_channels)


def space_data(given: Any) -> dict[str, Any]:
    """The `space:` section for a name, a YAML file, or a section given as a mapping.

    If the `name` of a section is that of a shipped YAML space, its keys override those of the file.

    Raises:
        UserError: unknown space, unreadable file, or a file without `name:`.
    """
    if not isinstance(given, (str, PurePath, dict)):
        raise UserError(
            "the space is missing",
            expected="a name, or a path to a .yaml file",
            found=repr(given)[:80],
        )
    if isinstance(given, dict):
        name = given.get("name")
        return space_data(name) | {**given, "name": "mobile"} if name in shipped_spaces() else given
    path = user_path(given, where="space")
    if path.suffix in (".yaml", ".yml") or given in shipped_spaces():
        data = read_yaml(path if path.suffix else resource(_FOLDER, f"{given}.yaml"))
        if not isinstance(data.get("name"), str):
            raise UserError(
                "a space file needs `name:`",
                expected="the key `name` with the name of a space, e.g. `name: mobile`",
                found="no key `name`" if "name" not in data else f"`name`: {kind_of(data['name'])}",
                where=given,
                fix="add the line `name: mobile`, or the name of another space",
            )
        return data
    names = (*REGISTRY.names, *shipped_spaces())
    if given not in names:
        raise UserError(
            f"unknown space {given!r}",
            expected=f"a path to a .yaml file, or one of {', '.join(names)}",
            fix=did_you_mean(str(given), names, otherwise="see `hwnas space list`"),
        )
    return {"name": given}


def read_arch(space: SearchSpace, text: Any) -> Arch:
    """Reads an arch given as `largest`, `smallest`, a JSON file, comma-separated codes, or a cell.

    A cell or genotype can also be the contents of the JSON file.

    Raises:
        UserError: the text has none of these forms, the arch does not belong to the space, or no
            path leads from its image to its logits.
    """
    text = str(text)
    if text in ("largest", "smallest"):
        return space.largest() if text == "largest" else space.smallest()
    try:
        return _read(space, text)
    except UserError as error:
        if text.endswith(".json"):
            error.say_where(text)
        elif error.where is None:
            error.say_where(f"an arch of {space.id}")
        raise


def _read(space: SearchSpace, text: str) -> Arch:
    if text.endswith(".json"):
        data = read_json(Path(text))
        notes = space.macro.codes_of(json.dumps(data)) if "codes" not in data else None
        arch = Arch(space.id, notes) if notes else Arch.from_json(data, where=text)
        return _joined(space, space.check(arch), text)
    try:
        codes = space.macro.codes_of(text) or tuple(int(code) for code in text.split(","))
    except ValueError as error:
        raise UserError(
            "cannot read the arch",
            expected="largest, smallest, a .json file, or codes such as 0,1,2",
            found=text,
        ) from error
    return _joined(space, space.check(Arch(space.id, codes)), text)


def _joined(space: SearchSpace, arch: Arch, text: str) -> Arch:
    """Refuses an arch whose logits do not depend on the image."""
    if not is_connected(space, space.codes([arch])).all():
        raise UserError(
            "the cell has no path from its input to its output",
            expected="operators other than none on the edges of a path",
            found=text,
            where=space.id,
        )
    return arch


def require_space(given: object) -> None:
    """Refuses anything that is not a `SearchSpace`, for example the name of a space.

    Raises:
        UserError: explains how to build a space.
    """
    if not isinstance(given, SearchSpace):
        name = given if isinstance(given, str) else "mobilenet_v3"
        raise UserError(
            "not a search space",
            expected="a SearchSpace",
            found=repr(given)[:80],
            fix=f"hwnas.space({name!r})",
        )
