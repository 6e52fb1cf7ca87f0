"""The run folder's record of the outside files on which it depends."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, ClassVar

from hwnas.core.records import STRICT
from hwnas.devices.spec import DEVICE_NAME

__all__ = ["OutsideFile", "OutsideFiles", "copied_device", "copy_fact"]


@dataclass(frozen=True)
class OutsideFile:
    """A file outside the run folder: its name in a setting, absolute path and hash.

    setting: `supernet.init`, or `devices/NAME` for the definition of a device, or `copies/NAME` for
        its copy in the run folder.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    setting: str
    given: str
    path: str
    sha256: str


@dataclass(frozen=True)
class OutsideFiles:
    """Files outside the run folder, one per setting and name."""

    __pydantic_config__: ClassVar[Any] = STRICT

    files: tuple[OutsideFile, ...] = ()


_COPIES = "copies/"


def copy_fact(device: str, text: str) -> OutsideFile:
    """Record of a device definition that is copied into the run folder. text: its content."""
    digest = hashlib.sha256(text.encode()).hexdigest()
    return OutsideFile(f"{_COPIES}{device}", device, f"outside/devices/{device}.yaml", digest)


def copied_device(file: OutsideFile) -> str | None:
    """Name of the device, if the file is a copy of its definition; otherwise None."""
    name = file.setting.removeprefix(_COPIES)
    return name if name != file.setting and DEVICE_NAME.fullmatch(name) else None
