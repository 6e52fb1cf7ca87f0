"""The run folder's record of the outside files that it depends on."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, ClassVar

from hwnas.core.records import STRICT
from hwnas.devices.spec import DEVICE_NAME

__all__ = ["OutsideFile", "OutsideFiles", "copied_device", "copy_fact"]


@dataclass(frozen=True)
class OutsideFile:
    """A file outside the run folder: as a setting names it, where it lay (absolute), its hash.

    setting: `supernet.init`, or `devices/NAME` of the definition of a device; `copies/NAME` is the
    run's copy of it.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    setting: str
    given: str
    path: str
    sha256: str


@dataclass(frozen=True)
class OutsideFiles:
    """Files outside the run folder, one of each setting and name given in it."""

    __pydantic_config__: ClassVar[Any] = STRICT

    files: tuple[OutsideFile, ...] = ()


_COPIES = "copies/"


def copy_fact(device: str, text: str) -> OutsideFile:
    """What the run notes of its copy of the definition of a device."""
    digest = hashlib.sha256(text.encode()).hexdigest()
    return OutsideFile(f"{_COPIES}{device}", device, f"outside/devices/{device}.yaml", digest)


def copied_device(file: OutsideFile) -> str | None:
    """The device whose copy in the run folder this is; None if it is another file."""
    name = file.setting.removeprefix(_COPIES)
    return name if name != file.setting and DEVICE_NAME.fullmatch(name) else None
