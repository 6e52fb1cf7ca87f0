"""Selects the exported file that a device runs: its format, settings and name.

`artifact_of` makes this selection for all other code. The module of each format declares which
devices run its files (`RUNS_ON`). A run exports its `planned_formats`: the formats of its
configuration, and further formats that its devices need.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

from pydantic import BaseModel

from hwnas.core.config import build_model
from hwnas.core.errors import UserError
from hwnas.exporters import REGISTRY
from hwnas.exporters.base import Format, FormatConfig
from hwnas.exporters.labels import Labelled, labels, with_label
from hwnas.interfaces import DeviceSpec, Exporter, RunsOn

__all__ = [
    "PlannedFormat",
    "artifact_of",
    "as_trained",
    "duplicates",
    "format_of",
    "planned_formats",
]

PRECISIONS = {"fp16": "fp16", "int8": "int8"}
"""Maps formats without the setting `precision` to their precision; all other formats are fp32."""


@dataclass(frozen=True)
class PlannedFormat:
    """A file that is exported for a network.

    label: suffix in the file name, if the format with other settings has the plain name.
    configured: whether the configuration lists the format; otherwise only devices need it.
    devices: names of the devices that run this file, or a file made from it.
    """

    config: BaseModel
    label: str = ""
    configured: bool = True
    devices: frozenset[str] = field(default_factory=frozenset)

    @property
    def name(self) -> str:
        """Name of the format."""
        return format_of(self.config)

    @property
    def path(self) -> str:
        """The model's path in a bundle."""
        if not isinstance(self.config, FormatConfig):
            return self.name
        folder, slash, name = self.config.file.rpartition("/")
        return f"{folder}{slash}{with_label(name, self.label, name)}"

    @property
    def precision(self) -> Literal["fp32", "fp16", "int8"]:
        """Precision of the file."""
        given = getattr(self.config, "precision", PRECISIONS.get(self.name, "fp32"))
        return cast(Literal["fp32", "fp16", "int8"], given)

    @property
    def shown(self) -> str:
        """The format and, if it has several, its precision: `onnx`, `litert:int8`."""
        has_several = hasattr(self.config, "precision")
        return f"{self.name}:{self.precision}" if has_several else self.name

    def exporter(self) -> Exporter:
        """The exporter that writes, describes and opens the file.

        Raises:
            UserError: a package that the format needs is not installed.
        """
        built: Exporter = REGISTRY.load(self.name).build(self.config)
        if not self.label:
            return built
        assert isinstance(built, Format)
        return Labelled(built, self.label)

    def belongs_to(self, device: str) -> bool:
        """Whether the bundle of the device contains the file."""
        return self.configured or device in self.devices


def format_of(config: BaseModel) -> str:
    """Name of the format that these settings belong to."""
    return str(getattr(config, "name"))  # noqa: B009 - every section of a variant has one


def artifact_of(formats: Iterable[PlannedFormat], device: DeviceSpec) -> PlannedFormat:
    """The first format whose file the device runs, in the runtime and precision of the device.

    Raises:
        UserError: no format fits.
    """
    for one in formats:
        if _serves(one.config, device):
            return one
    raise UserError(
        f"no exported file runs on the device {device.name!r}",
        expected=f"a format for {_words(device)}",
        found=f"the formats {', '.join(one.name for one in formats) or '(none)'}",
        fix="export with this device in `devices`; hwnas then adds the format that it needs",
    )


def planned_formats(
    configured: Sequence[BaseModel], devices: Iterable[DeviceSpec]
) -> tuple[PlannedFormat, ...]:
    """All formats to export. A format from which another is made comes before it.

    Raises:
        UserError: no format fits a device.
    """
    plan = [PlannedFormat(config) for config in configured]
    for one in configured:
        for section in _sources(one):
            _find_or_add(plan, section)
    for device in devices:
        index = next((i for i, one in enumerate(plan) if _serves(one.config, device)), None)
        if index is None:
            plan.append(PlannedFormat(_default_for(device), configured=False))
            index = len(plan) - 1
        used = [index, *(_find_or_add(plan, s) for s in _sources(plan[index].config))]
        for i in used:
            plan[i] = replace(plan[i], devices=plan[i].devices | {device.name})
    return tuple(sorted(_labelled(plan), key=_order))


def as_trained(formats: Iterable[PlannedFormat]) -> tuple[PlannedFormat, ...]:
    """The same formats with `weights: nearest`, for networks that were trained with this rounding.

    Formats without the setting `weights` are unchanged.
    """
    return tuple(
        replace(one, config=one.config.model_copy(update={"weights": "nearest"}))
        if "weights" in type(one.config).model_fields
        else one
        for one in formats
    )


def _order(one: PlannedFormat) -> tuple[bool, bool]:
    return one.name != "onnx", bool(_sources(one.config))


def duplicates(configured: Sequence[BaseModel]) -> str:
    """Describes formats that would write the same file; empty if there are none."""
    for later, one in enumerate(configured):
        for earlier, other in enumerate(configured[:later]):
            is_variant = isinstance(one, FormatConfig) and one != other
            if format_of(one) == format_of(other) and not is_variant:
                file = one.file if isinstance(one, FormatConfig) else f"of {format_of(one)}"
                return (
                    f"lists {format_of(one)} twice with the same settings, at positions {earlier}"
                    f" and {later}, which would write the same file {file}: remove one of them, or"
                    " change a setting"
                )
    return ""


def _serves(config: BaseModel, device: DeviceSpec) -> bool:
    """Whether the device runs the file with these settings."""
    row = _row(format_of(config), device)
    return (
        row is not None
        and isinstance(config, FormatConfig)
        and config.takes(device.batch)
        and all(getattr(config, key) == value for key, value in row.settings.items())
    )


def _row(name: str, device: DeviceSpec) -> RunsOn | None:
    """Entry of a format's `RUNS_ON` for a device; None if the device does not run the format."""
    declared: Sequence[RunsOn] = ()
    with contextlib.suppress(UserError):  # a damaged module of another package
        declared = getattr(REGISTRY.declaration(name), "RUNS_ON", ())
    return next((row for row in declared if row.fits(device)), None)


def _default_for(device: DeviceSpec) -> FormatConfig:
    """The format for a device, with suitable settings.

    Raises:
        UserError: no format fits the device.
    """
    for name in REGISTRY.names:
        if row := _row(name, device):
            model = REGISTRY.declaration(name).Config
            assert issubclass(model, FormatConfig)
            section = {**row.settings, **model.for_batch(device.batch)}
            config = _build(model, {"name": name, **section})
            if config.takes(device.batch):
                return config
    raise UserError(
        f"no export format runs on the device {device.name!r}",
        expected=_known(device),
        found=_words(device),
        where=f"device {device.name}",
        fix="change runtime, precision or batch in the device's file",
    )


def _build(model: type[FormatConfig], section: Mapping[str, Any]) -> FormatConfig:
    return build_model(model, dict(section), where=f"the format {section['name']}")


def _sources(config: BaseModel) -> tuple[dict[str, Any], ...]:
    return config.sources if isinstance(config, FormatConfig) else ()


def _find_or_add(plan: list[PlannedFormat], section: Mapping[str, Any]) -> int:
    """Index of a format that has at least the settings of `section`; appends one if needed."""
    for index, one in enumerate(plan):
        if all(getattr(one.config, key, None) == value for key, value in section.items()):
            return index
    model = REGISTRY.declaration(section["name"]).Config
    assert issubclass(model, FormatConfig)
    plan.append(PlannedFormat(_build(model, section), configured=False))
    return len(plan) - 1


def _labelled(plan: Sequence[PlannedFormat]) -> Iterator[PlannedFormat]:
    """The same formats, with labels where two files would have the same name."""
    for one in plan:
        if not isinstance(one.config, FormatConfig):
            yield one
            continue
        rivals = [
            other.config
            for other in plan
            if isinstance(other.config, FormatConfig) and other.config.file == one.config.file
        ]
        yield replace(one, label=labels(rivals)[rivals.index(one.config)])


def _words(device: DeviceSpec) -> str:
    where = "here" if device.transport == "local" else f"over {device.transport}"
    return (
        f"runtime {device.runtime} ({device.provider}), {device.precision}, batch {device.batch},"
        f" {where}"
    )


def _known(device: DeviceSpec) -> str:
    """The runtime of the device with the precisions that formats support, in words."""
    rows = [
        row
        for name in REGISTRY.names
        for row in getattr(REGISTRY.declaration(name), "RUNS_ON", ())
        if row.runtime == device.runtime
    ]
    precisions = {row.precision for row in rows}
    if not precisions:
        return f"a runtime with an export format, which {device.runtime} does not have"
    return f"runtime {device.runtime} in {' or '.join(sorted(precisions))}"
