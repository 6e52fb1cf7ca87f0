"""The part of a space that a latency table covers, if it does not cover the whole space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hwnas.core.command import command_line
from hwnas.core.config import build_model
from hwnas.core.errors import UserError
from hwnas.core.resources import SHIPPED_TABLES, resource_files
from hwnas.core.rng import rng
from hwnas.latency.classifiers import is_classifier
from hwnas.spaces import REGISTRY
from hwnas.spaces.choice import Value
from hwnas.spaces.index import enumerate_ops, op_index
from hwnas.spaces.ops import OpSpec
from hwnas.spaces.space import SearchSpace

if TYPE_CHECKING:
    from hwnas.interfaces import DeviceSpec
    from hwnas.latency.table import LatencyTable

__all__ = [
    "covers",
    "not_covered",
    "profile_command",
    "shown_settings",
    "way_to_table",
    "working_settings",
    "working_values",
]

N_ARCHS = 8192  # sampled to find values of choices that need missing operators
MIN_ARCHS = 8  # minimum samples with a value active
N_SHOWN = 3


def covers(table: LatencyTable, space: SearchSpace) -> bool:
    """Whether the table prices every arch of the space, including untimed classifiers."""
    has_classifier = any(is_classifier(op) for op in table.rows)
    return all(
        op in table.rows or (has_classifier and is_classifier(op)) for op in enumerate_ops(space)
    )


def not_covered(table: LatencyTable, space: SearchSpace, missing: Sequence[OpSpec]) -> UserError:
    """The error for a table that lacks operators; names settings and tables that work."""
    fixes = []
    if (values := working_values(table, space)) is not None:
        fixes.append(f"restrict the space to {_words(values)}")
    elif (
        found := working_settings(table, space.name, in_channels=space.macro.in_channels)
    ) is not None:
        fixes.append(f"build the space with {shown_settings(found[0])}")
    shipped = resource_files(SHIPPED_TABLES, ".json")
    others = [name for name, path in shipped.items() if covers(table.load(path), space)]
    if others:
        fixes.append(f"take a shipped table that covers the space: {', '.join(others)}")
    fixes.append(way_to_table(table.device, space))
    return UserError(
        f"the latency table of {table.device.name} lacks operators of {space.id}",
        found=f"{len(missing)} operators missing, such as "
        + "; ".join(map(str, missing[:N_SHOWN])),
        fix="; or ".join(fixes),
    )


def working_values(table: LatencyTable, space: SearchSpace) -> dict[str, tuple[Value, ...]] | None:
    """Restrictions (choices and values to keep) with which the table covers the space.

    The result is an argument of `SearchSpace.restrict`. A value is dropped if, in one slot, all
    archs with this value need operators that the table lacks, and other archs do not. If there is
    no such value, the value that most often occurs with a missing operator is dropped. None if the
    table covers no restriction.
    """
    narrowed = space
    while not covers(table, narrowed):
        worst = _values_to_drop(table, narrowed)
        kept = {}
        for column in sorted({column for column, _ in worst}):
            codes = [code for code in narrowed.allowed[column] if (column, code) not in worst]
            choice = narrowed.choices[column]
            kept[choice.name] = tuple(choice.values[code] for code in codes)
        if not worst or not all(kept.values()):
            return None
        narrowed = narrowed.restrict(kept)
    return {
        choice.name: tuple(choice.values[code] for code in now)
        for choice, now, then in zip(space.choices, narrowed.allowed, space.allowed, strict=True)
        if now != then
    }


def working_settings(
    table: LatencyTable, name: str, *, num_classes: int = 1000, in_channels: int = 3
) -> tuple[dict[str, Any], SearchSpace] | None:
    """Finds settings with which the table covers the registered space `name`.

    It tries the defaults of the space, and the defaults with the resolutions that the table has.
    Returns the settings and the space, or None if neither works.
    """
    if name not in REGISTRY.names:
        return None
    module = REGISTRY.load(name)
    fields = module.Config.model_fields
    defaults = {key: field.default for key, field in fields.items() if key != "name"}
    stems = [op for op in table.rows if op.kind == "conv" and op.in_channels == in_channels]
    sizes = sorted({op.in_hw for op in stems})
    for data in ({}, {"resolutions": sizes}) if sizes and "resolutions" in fields else ({},):
        try:
            config = build_model(module.Config, {"name": name, **data}, where="defaults")
            space = module.build(config, num_classes=num_classes, in_channels=in_channels)
        except UserError:  # a setting without a default, or a size that the space does not support
            continue
        if covers(table, space):
            return {**defaults, **data}, space
    return None


def _values_to_drop(table: LatencyTable, space: SearchSpace) -> set[tuple[int, int]]:
    """(column, code) of values that need missing operators."""
    codes = space.sample(N_ARCHS, rng=rng(0, "latency/coverage"))
    is_missing = np.array(
        [op not in table.rows and not is_classifier(op) for op in enumerate_ops(space)] + [False]
    )  # the last one: absent
    missing = is_missing[op_index(space, codes)]  # [n, slots]
    overall = missing.mean(axis=0)
    active = space.active(codes)
    shares: dict[tuple[int, int], float] = {}
    always: set[tuple[int, int]] = set()
    for column, allowed in enumerate(space.allowed):
        for code in allowed if len(allowed) > 1 else ():
            having = active[:, column] & (codes[:, column] == code)
            if having.sum() < MIN_ARCHS:
                continue
            share = missing[having].mean(axis=0)
            if ((share == 1) & (overall < 1)).any():
                always.add((column, code))
            shares[column, code] = float((share - overall).max())
    if always or not shares or max(shares.values()) <= 0:
        return always
    return {max(shares, key=lambda value: shares[value])}


def _words(values: Mapping[str, tuple[Value, ...]]) -> str:
    """The kept values in words; choices of one kind with equal values become one pattern."""
    groups: dict[tuple[str, tuple[Value, ...]], list[str]] = {}
    for name, kept in values.items():
        groups.setdefault((name.rpartition(".")[2], kept), []).append(name)
    return ", ".join(
        ("resolutions" if kind == "resolution" else names[0] if len(names) == 1 else f"*.{kind}")
        + f"={_shown(kept)}"
        for (kind, kept), names in groups.items()
    )


def shown_settings(settings: Mapping[str, Any]) -> str:
    """Settings in the form of the command line."""
    return ", ".join(f"{name}={_shown(value)}" for name, value in settings.items())


def way_to_table(device: DeviceSpec, space: SearchSpace) -> str:
    """How to get a table of a device for a space; of some devices only one table is known."""
    if device.transport == "table":
        return "name another table in the file of the device"
    return f"measure a table: {profile_command(device.name, space)}"


def profile_command(device: str, space: SearchSpace) -> str:
    """The command that measures a table of a device for a space with otherwise default settings."""
    resolutions = [str(space.choices[0].values[code]) for code in space.allowed[0]]
    has_images = not space.macro.reads_tokens
    return command_line(
        *("profile", device, "--space", space.name),
        *(("--resolutions", ",".join(resolutions)) if has_images else ()),
        *("--num-classes", str(space.macro.num_classes)),
    )


def _shown(value: Any) -> str:
    return str(list(value)) if isinstance(value, tuple) else str(value)
