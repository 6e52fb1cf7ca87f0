"""An Android phone over adb, with its own Python (Termux, or a rooted phone)."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from hwnas.core.config import StrictModel
from hwnas.devices.reach import call
from hwnas.devices.remote import RemoteKit
from hwnas.interfaces import DeviceSpec, Transport

__all__ = ["Config", "build"]


class Config(StrictModel):
    """Address of the phone, and the place of its Python. Tested only with a simulated adb."""

    name: Literal["adb"] = "adb"
    serial: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.:-]*$")] | None = Field(
        None,
        description="Serial number from `adb devices`; required if several devices are connected.",
    )
    as_root: bool = Field(
        False, description="Run commands with `su -c`, to use the Python of Termux."
    )
    folder: Annotated[str, Field(pattern=r"^[A-Za-z0-9_./][A-Za-z0-9_./-]*$")] = Field(
        "/data/local/tmp/hwnas-kit", description="Folder on the phone for models, kit and results."
    )
    python: str = Field(
        "/data/data/com.termux/files/usr/bin/python3",
        description="Python interpreter on the phone that has the runtime.",
    )
    before: str = Field("", description="Shell command to run before the interpreter.")


def build(config: Config, device: DeviceSpec) -> Transport:
    """The transport to the phone; it connects when it is first used."""
    return RemoteKit(_Adb(config), device, config.folder, config.python, config.before)


@dataclass(frozen=True)
class _Adb:
    config: Config

    @property
    def where(self) -> str:
        return f"adb {self.config.serial or 'device'}"

    def command(self, script: str) -> list[str]:
        if self.config.as_root:
            script = f"su -c {shlex.quote(script)}"
        return self._adb("shell", script)

    def push(self, local: Path, remote: str) -> None:
        call(self._adb("push", str(local), remote), where=self.where)

    def pull(self, remote: str, local: Path) -> None:
        call(self._adb("pull", remote, str(local)), where=self.where)

    def _adb(self, *words: str) -> list[str]:
        serial = [] if self.config.serial is None else ["-s", self.config.serial]
        return ["adb", *serial, *words]
