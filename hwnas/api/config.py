"""`hwnas config ...`: lists and explains settings, and shows the values of a file."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hwnas.api.result import Listing, Settings
from hwnas.core.errors import UserError, did_you_mean
from hwnas.core.resources import resource_names
from hwnas.core.rundir import RunDir
from hwnas.core.settings import Setting, retired_keys, settings_of
from hwnas.pipeline.config import ExperimentConfig, load_config
from hwnas.pipeline.stored import config_data, stored_config

__all__ = ["config_explain", "config_schema", "config_show"]


def config_show(config: Path | str, *, settings: Settings = None) -> Listing:
    """All settings of a configuration, and their source: the file, `settings`, or a default.

    Args:
        config: a YAML file, one of `hwnas.list("configs")`, or a run folder.

    Raises:
        UserError: there is no such file, or it has problems, which the error lists.
    """
    is_name = str(config) in resource_names("configs", ".yaml")  # a folder can have this name
    is_run = os.path.isdir(config) and (
        not is_name or os.path.isfile(stored_config(RunDir(Path(config))))
    )
    named = None if is_run else str(config)
    data, where = config_data(RunDir(Path(config)), named, settings)
    built = load_config(data, settings, where=where).model_dump(mode="json")
    changed = tuple(settings or ())
    given, hidden = dict(_leaves(data, "")), {*retired_keys(ExperimentConfig)}
    rows = [
        {"key": key, "value": value, "from": _source(key, given, changed)}
        for key, value in _leaves(built, "")
        if key not in hidden
    ]
    return Listing(rows, title=str(where), facts={"config": built})


def config_explain(key: str | None = None) -> Listing:
    """Type, default, allowed values and meaning of settings, for all variants.

    Args:
        key: path of a setting or a section, e.g. `search.reward`; default: the whole configuration.

    Raises:
        UserError: there is no such key; suggests similar keys.
    """
    found = list(settings_of(ExperimentConfig))
    if key is not None:
        wanted = ".".join("N" if part.isdigit() else part for part in key.split("."))
        known = {s.key for s in found}
        found = [s for s in found if s.key == wanted or s.key.startswith(f"{wanted}.")]
        if not found:
            raise UserError(
                f"no setting {key!r}",
                expected="the path of a setting or a section, such as search.reward",
                fix=did_you_mean(wanted, sorted(known), otherwise="see `hwnas config explain`"),
            )
    return Listing([_row(setting) for setting in found])


def config_schema() -> dict[str, Any]:
    """The JSON Schema of a configuration, with which editors complete and check YAML files."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **ExperimentConfig.model_json_schema(),
    }


def _row(setting: Setting) -> dict[str, Any]:
    return {
        "key": setting.key,
        "of": " > ".join(setting.variants) or None,
        "type": setting.type,
        "default": "(required)" if setting.default is None else setting.default,
        "range": setting.range or None,
        "meaning": setting.meaning,
    }


def _leaves(data: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Key path and value of all settings; lists of sections item by item."""
    has_sections = isinstance(data, list) and any(isinstance(item, Mapping) for item in data)
    if isinstance(data, Mapping) and data:
        items = [*data.items()]
    elif has_sections:
        items = [*enumerate(data)]
    else:
        yield path, data
        return
    for key, value in items:
        yield from _leaves(value, f"{path}.{key}" if path else str(key))


def _source(key: str, given: Mapping[str, Any], changed: tuple[str, ...]) -> str:
    def has(names: Any) -> bool:
        return any(key == name or key.startswith(f"{name}.") for name in names)

    return "settings" if has(changed) else "file" if has(given) else "default"
