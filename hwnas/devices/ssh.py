"""Times models on a board over ssh. It has python3, numpy and a runtime, or hwnas copies them."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from hwnas.core.config import BESIDE, StrictModel
from hwnas.devices.carried import carried_runtime
from hwnas.devices.reach import call
from hwnas.devices.remote import RemoteKit
from hwnas.interfaces import DeviceSpec, Transport

__all__ = ["Config", "build"]

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.:-]*$")]  # never an option


class Config(StrictModel):
    """Connection to the board; other settings come from ~/.ssh/config.

    The `ssh` of the system is used in batch mode, so log in by key. Files are copied with `cat`,
    because small boards have no sftp server.
    """

    name: Literal["ssh"] = "ssh"
    host: Name = Field(description="Name, address, or alias in ~/.ssh/config.")
    user: Name | None = None
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    identity: Annotated[str | None, BESIDE] = Field(
        None, description="Private key file, relative to the file of the device."
    )
    known_hosts: Annotated[str | None, BESIDE] = Field(
        None, description="File of known host keys, relative to the file of the device."
    )
    folder: Annotated[str, Field(pattern=r"^[A-Za-z0-9_./][A-Za-z0-9_./-]*$")] = Field(
        "hwnas-kit", description="Folder on the board, relative to the home folder."
    )
    python: str = Field(
        "python3",
        description="Python interpreter on the board; the runtime must be installed for it.",
    )
    with_runtime: Literal["arm64"] | None = Field(
        None,
        description="Architecture of a folder with Python and the runtime that is copied to the"
        " board, once; then the board needs neither.",
    )
    before: str = Field(
        "",
        description="Shell command to run on the board before the Python interpreter, in the same"
        " shell, such as `. ~/venv/bin/activate`.",
    )


def build(config: Config, device: DeviceSpec) -> Transport:
    """The transport to the board; it connects when it is first used."""
    carried = config.with_runtime and carried_runtime(config.with_runtime, device.runtime)
    return RemoteKit(
        _Ssh(config), device, config.folder, config.python, config.before, carried=carried or None
    )


@dataclass(frozen=True)
class _Ssh:
    config: Config

    @property
    def where(self) -> str:
        config = self.config
        return f"{config.user}@{config.host}" if config.user else config.host

    @property
    def identity(self) -> str:
        return f"ssh {self.where} {self.config.port or ''}".rstrip()

    def command(self, script: str) -> list[str]:
        config = self.config
        options = ["BatchMode=yes", "ConnectTimeout=15"]
        options += ["ServerAliveInterval=15", "ServerAliveCountMax=3"]  # detects a lost connection
        if config.known_hosts is not None:
            options += [_file("UserKnownHostsFile", config.known_hosts)]
            options += ["StrictHostKeyChecking=yes"]
        if config.identity is not None:
            options += ["IdentitiesOnly=yes", _file("IdentityFile", config.identity)]
        command = ["ssh", *(word for option in options for word in ("-o", option))]
        if config.port is not None:
            command += ["-p", str(config.port)]
        return [*command, "--", self.where, f"sh -c {shlex.quote(script)}"]

    def push(self, local: Path, remote: str) -> None:
        with open(local, "rb") as stream:
            call(self.command(f"cat > {shlex.quote(remote)}"), where=self.where, stdin=stream)

    def pull(self, remote: str, local: Path) -> None:
        call(self.command(f"cat {shlex.quote(remote)}"), where=self.where, into=local)


def _file(option: str, path: str) -> str:
    """An ssh option with one quoted file; otherwise ssh splits at spaces and expands `%`."""
    text = path.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'{option}="{text}"'
