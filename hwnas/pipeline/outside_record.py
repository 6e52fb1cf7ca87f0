"""The run folder's record of the outside files that it depends on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from hwnas.core.records import STRICT

__all__ = ["OutsideFile", "OutsideFiles"]


@dataclass(frozen=True)
class OutsideFile:
    """A file outside the run folder: as a setting names it, where it lay (absolute), its hash.

    setting: `supernet.init`, or `devices/NAME` of the definition of a device.
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
