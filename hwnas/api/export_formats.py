"""Names of formats as `hwnas export` takes them: settings that they stand for, and downloads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from hwnas.api.options import refuse_both, refuse_unused
from hwnas.api.result import Folder, Settings, listed, no_progress
from hwnas.core.command import command_line
from hwnas.core.config import build_model
from hwnas.core.errors import UserError
from hwnas.exporters import REGISTRY
from hwnas.exporters.every import ALL
from hwnas.exporters.names import require_format
from hwnas.pipeline.config import sections_of, with_formats
from hwnas.pipeline.opening import open_project

__all__ = ["export_changes", "fetch_for", "is_all"]


def is_all(formats: Sequence[str] | None) -> bool:
    """Whether the names include `all`."""
    return formats is not None and ALL in (name.strip() for name in listed(formats))


def fetch_for(formats: Sequence[str] | None) -> None:
    """Downloads what the named formats need.

    Raises:
        UserError: none of them needs a download, or it fails.
    """
    named = [name.strip().partition(":")[0] for name in listed(formats or ())]
    names = REGISTRY.names if ALL in named else [n for n in named if n in REGISTRY.names]
    modules = [REGISTRY.load(name) for name in names if not REGISTRY.describe(name).missing]
    needed = [module for module in modules if hasattr(module, "fetch")]
    refuse_unused(
        {"--fetch": not needed},
        to=f"the formats {', '.join(named) or 'of the configuration'}",
        fix="leave --fetch out, or add --formats web",
    )
    for module in needed:
        module.fetch()


def export_changes(
    folder: Folder, config: str | None, formats: Sequence[str] | None, settings: Settings
) -> dict[str, Any]:
    """Settings with which a run exports `formats`; configured settings of a format are kept.

    Raises:
        UserError: the settings contradict `formats`, no format is named, or one is named twice.
    """
    refuse_both("--formats", formats, "export", settings)
    changes = dict(settings or {})
    if formats is None:
        return changes
    if not all(name.strip() for name in listed(formats)) or not len(formats):
        raise UserError(
            "a format has no name",
            expected="names of formats, for example onnx,int8",
            found=repr(",".join(listed(formats))),
            where="formats",
            fix="remove the superfluous comma, or name a format: see"
            f" `{command_line('list', 'exporters')}`",
        )
    given = [name.strip() for name in listed(formats)]
    for name in given:
        _configs(name, ())  # an invalid name is found before the run is opened
    _refuse_all_with_others(given)
    with open_project(
        Path(folder),
        config=config,
        changes=changes,
        progress_for=no_progress,
        command="hwnas export",
        read_only=True,
    ) as project:
        configured = project.config.export
        _refuse_twice(given, configured)
        return changes | {"export": with_formats(given, configured)}


def _configs(name: str, configured: Sequence[BaseModel]) -> list[BaseModel]:
    """The settings that `name` stands for, except for `all`; see `sections_of`.

    Raises:
        UserError: the format or its precision is unknown.
    """
    if name == ALL:
        return []
    where = f"formats: {name}"
    require_format(name, where=where, or_all=True)
    return [
        build_model(REGISTRY.declaration(section["name"]).Config, section, where=where)
        for section in sections_of(name, configured)
    ]


def _refuse_all_with_others(names: Sequence[str]) -> None:
    """Refuses `all` together with other formats.

    Raises:
        UserError: shows the names.
    """
    if ALL in names and {*names} != {ALL}:
        raise UserError(
            f"{ALL!r} already means every format that can be written here",
            expected=f"{ALL!r} alone, or names of formats",
            found=", ".join(names),
            where="formats",
            fix=f"give only {ALL!r}, or remove it from the list",
        )


def _refuse_twice(names: Sequence[str], configured: Sequence[BaseModel]) -> None:
    """Refuses two names for the same format, such as `onnx` and `onnx:fp32`.

    Raises:
        UserError: shows both names.
    """
    before: list[tuple[str, list[BaseModel]]] = []
    for name in names:
        configs = _configs(name, configured)
        twice = next((one for one, others in before if any(c in others for c in configs)), None)
        if twice is not None or (name == ALL and ALL in dict(before)):
            same = dict.fromkeys((twice or name, name))
            raise UserError(
                "a format is named twice",
                expected="every format once",
                found=", ".join(names),
                where="formats",
                fix=f"name {name} once" if len(same) == 1 else f"name only {' or '.join(same)}",
            )
        before.append((name, configs))
