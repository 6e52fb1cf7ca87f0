"""An Android phone over adb, with a python of its own (Termux, or a rooted phone)."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from hwnas.core.config import StrictModel
from hwnas.devices.remote import RemoteKit, call
from hwnas.interfaces import DeviceSpec, Transport

__all__ = ["Config", "build"]


class Config(StrictModel):
    """Which phone, and where its python is. Tested against an imitation of adb only."""

    name: Literal["adb"] = "adb"
    serial: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.:-]*$")] | None = Field(
        None, description="as `adb devices` lists it; needed where there are several"
    )
    as_root: bool = Field(False, description="run through `su -c`, to reach Termux's python")
    folder: Annotated[str, Field(pattern=r"^[A-Za-z0-9_./][A-Za-z0-9_./-]*$")] = Field(
        "/data/local/tmp/hwnas-kit", description="on the phone"
    )
    python: str = Field(
        "/data/data/com.termux/files/usr/bin/python3", description="its python with the runtime"
    )
    before: str = Field("", description="shell command that prepares it")


def build(config: Config, device: DeviceSpec) -> Transport:
    """The transport to the phone; connects when it is used."""
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
