"""Loads device specs from YAML: shipped devices by name, others by path."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import fields
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

from pydantic import BaseModel, Field, create_model

from hwnas.core.config import BESIDE, NUMBER, StrictModel, build_model, variant
from hwnas.core.env import user_path
from hwnas.core.errors import UserError, did_you_mean
from hwnas.core.resources import resource, resource_names
from hwnas.core.yaml_data import read_yaml
from hwnas.devices import REGISTRY
from hwnas.devices.runtimes import runtime_names
from hwnas.interfaces import DeviceSpec, TableTransport, Transport

__all__ = [
    "DEVICE_NAME",
    "device_file",
    "device_names",
    "device_settings",
    "load_device",
    "load_devices",
    "load_transport",
    "open_transport",
    "timing_transport",
]

DEVICE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_FOLDER = "configs/devices"
_POSITIVE = Annotated[int, Field(ge=1, le=65536)]


def device_names() -> tuple[str, ...]:
    """Names of the shipped devices."""
    return resource_names(_FOLDER, ".yaml")


def load_device(name_or_path: str) -> DeviceSpec:
    """A shipped device by name, or one from a YAML file, named after the stem of the file.

    Raises:
        UserError: no such device, an invalid file name, or an invalid file (lists all problems).
    """
    return _read(name_or_path)[0]


def load_devices(names_or_paths: Sequence[str]) -> dict[str, DeviceSpec]:
    """Devices by name, in the given order.

    Raises:
        UserError: as in `load_device`, or two devices have the same name.
    """
    found: dict[str, DeviceSpec] = {}
    for given in names_or_paths:
        device = load_device(given)
        if device.name.casefold() in {name.casefold() for name in found}:
            raise UserError(
                f"two devices are called {device.name!r}"
                + " (ignoring case)" * (device.name not in found),
                expected="distinct names; the stem of a device's file is its name",
                found=", ".join(names_or_paths),
                where="devices",
                fix="rename one of the files, or give the device once",
            )
        found[device.name] = device
    return found


def load_transport(name_or_path: str, *, beside: Path | None = None) -> Transport:
    """The transport of a device; it connects when it first runs the kit.

    beside: folder to which relative paths in the device's file refer; default: the folder of the
        file. For copies of a file, use the folder of the original.

    Raises:
        UserError: as in `load_device`.
    """
    device, settings = _read(name_or_path)
    folder = device_file(name_or_path).parent if beside is None else beside
    return _build(device, _placed(settings, folder.absolute()))


def timing_transport(name_or_path: str) -> Transport:
    """The transport of a device on which models can be run.

    Raises:
        UserError: as in `load_device`, or only the latency table of the device is known.
    """
    transport = load_transport(name_or_path)
    if isinstance(transport, TableTransport):
        raise UserError(
            f"nothing can be timed on {name_or_path!r}, of which only a latency table is known",
            expected="a device on which models can be run",
            found=f"the table {transport.table}",
            where=name_or_path,
            fix="use the device in a run folder, or give its file another `transport`"
            " (`hwnas list transports`)",
        )
    return transport


def device_settings(name_or_path: str | Path) -> dict[str, Any]:
    """All settings of a device file, including defaults: spec and transport in one mapping.

    Raises:
        UserError: as in `load_device`.
    """
    device, settings = _read(str(name_or_path))
    plain = {f"transport.{key}": value for key, value in settings.model_dump().items()}
    return {f.name: getattr(device, f.name) for f in fields(device)} | plain


def open_transport(device: DeviceSpec) -> Transport:
    """The transport of a device, if this kind of transport needs no settings.

    Raises:
        UserError: unknown transport, or one that needs settings.
    """
    config = REGISTRY.load(device.transport).Config
    return _build(device, build_model(config, {}, where=f"transport of {device.name}"))


def _placed(settings: BaseModel, folder: Path) -> BaseModel:
    """The settings with absolute paths; relative ones refer to `folder`."""
    paths = {
        name: str(folder / user_path(given, where=name))
        for name, field in type(settings).model_fields.items()
        if BESIDE in field.metadata and (given := getattr(settings, name)) is not None
    }
    return settings.model_copy(update=paths)


def _build(device: DeviceSpec, settings: BaseModel) -> Transport:
    return REGISTRY.load(device.transport).build(settings, device)


def _read(name_or_path: str) -> tuple[DeviceSpec, BaseModel]:
    """The spec, and the settings of the transport."""
    path = device_file(name_or_path)
    given = build_model(_model(), read_yaml(path), where=path)
    values = {f.name: getattr(given, f.name) for f in fields(DeviceSpec) if f.name != "name"}
    settings = values["transport"]
    device = DeviceSpec(name=path.stem, **{**values, "transport": settings.name})
    if device.runtime not in runtime_names():
        raise UserError(
            f"unknown runtime {device.runtime!r}",
            expected=f"one of {', '.join(runtime_names())}",
            where=path,
            fix=did_you_mean(
                device.runtime, runtime_names(), otherwise="see `hwnas list runtimes`"
            ),
        )
    return device, settings


def device_file(name_or_path: str) -> Path:
    """The file of a shipped device by name, or the given path.

    Raises:
        UserError: no such device, or an invalid file name.
    """
    path = user_path(name_or_path, where="devices")
    if path.suffix.lower() not in (".yaml", ".yml"):
        names = device_names()
        if name_or_path not in names:
            raise UserError(
                f"no device {name_or_path!r}",
                expected=f"a path to a .yaml file, or one of {', '.join(names)}",
                fix=did_you_mean(name_or_path, names, otherwise="see `hwnas list devices`"),
            )
        path = resource(_FOLDER, f"{name_or_path}.yaml")
    if not DEVICE_NAME.fullmatch(path.stem):
        raise UserError(
            "invalid file name of a device",
            expected="a name of letters, digits, and the characters _ . -",
            found=path.name,
            where=path,
            fix="rename the file",
        )
    return path


@lru_cache(maxsize=1)  # building a model is slower than checking a file
def _model() -> type[BaseModel]:
    """A config model with the fields of `DeviceSpec` except the name: the YAML format."""
    hints = get_type_hints(DeviceSpec)
    checked: dict[str, Any] = {"batch": _POSITIVE, "threads": _POSITIVE}
    given: dict[str, Any] = {
        f.name: (checked.get(f.name, hints[f.name]), f.default)
        for f in fields(DeviceSpec)
        if f.name not in ("name", "transport")
    }
    given["schema_version"] = (Annotated[Literal[1], NUMBER], ...)
    given["transport"] = (variant(REGISTRY), Field("local", validate_default=True))
    model: type[BaseModel] = create_model("Device", __base__=StrictModel, **given)
    return model
