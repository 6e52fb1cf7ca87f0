"""Runs commands on a remote device and transfers files, by ssh or adb."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Protocol

from hwnas.core.env import cache_folder
from hwnas.core.errors import UserError
from hwnas.core.locks import exclusive_lock

__all__ = ["FULL", "LOST", "Reach", "alone", "call", "full_disk"]

CALL_TIMEOUT_S = 600.0
LOST = 255  # exit status of ssh itself, and of `adb shell` if the phone is gone
FULL = "No space left on device"
PACKAGES = {"ssh": "openssh-client"}  # of Debian, if they have another name than the program


class Reach(Protocol):
    """Transfers commands and files to a device and back."""

    @property
    def where(self) -> str:
        """The device, for messages."""
        ...

    @property
    def identity(self) -> str:
        """The device, the same for every name that this machine has for it."""
        ...

    def command(self, script: str) -> list[str]:
        """The local command that makes `sh` on the device run `script`."""
        ...

    def push(self, local: Path, remote: str) -> None:
        """Copies a file to the device."""
        ...

    def pull(self, remote: str, local: Path) -> None:
        """Copies a file from the device."""
        ...


def call(
    command: Sequence[str], *, where: str, stdin: IO[bytes] | None = None, into: Path | None = None
) -> str:
    """Runs a command that connects to the device. Returns its output, or writes it `into` a file.

    Raises:
        UserError: the command is not installed, failed, or took more than ten minutes.
    """
    try:
        with contextlib.ExitStack() as stack:
            if into is not None:
                into.unlink(missing_ok=True)  # it can have other hard links
            stdout = subprocess.PIPE if into is None else stack.enter_context(open(into, "wb"))
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL if stdin is None else stdin,
                stdout=stdout,
                stderr=subprocess.PIPE,
                timeout=CALL_TIMEOUT_S,
                check=False,
            )
    except FileNotFoundError as error:
        package = PACKAGES.get(command[0], command[0])
        raise UserError(
            f"{command[0]} is not installed on this machine",
            where=where,
            fix=f"install it; in Debian: apt-get install {package}",
        ) from error
    except subprocess.TimeoutExpired as error:
        raise UserError("the device does not respond", where=where) from error
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip()[-1000:]
        if FULL in said:
            raise full_disk(said, where)
        raise UserError(
            "cannot reach the device"
            if done.returncode == LOST
            else "a command failed on the device",
            found=said or f"exit status {done.returncode}",
            where=where,
        )
    return (done.stdout or b"").decode(errors="replace")


@contextlib.contextmanager
def alone(reach: Reach) -> Iterator[None]:
    """Times a device alone: two commands would stop each other's kit, or slow each other.

    Only commands with this cache know of each other. A cache that cannot be written prevents
    nothing.

    Raises:
        UserError: another command times the device.
    """
    folder = cache_folder() / "devices"
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
        yield
        return
    name = hashlib.sha256(reach.identity.encode()).hexdigest()[:16]
    with exclusive_lock(
        folder / f"in-use-{name}.lock",
        owner=f"hwnas on {reach.identity}",
        taken=f"another command times {reach.where}",
        fix="wait for it, or stop it",
    ):
        yield


def full_disk(found: object, where: str) -> UserError:
    """The error for a full disk on the device."""
    return UserError(
        "the disk of the device is full",
        found=found,
        where=where,
        fix="free space there: `hwnas clean --device FILE` lists what earlier plans left, and"
        " `folder` in the file of the device names another place; earlier samples are kept",
    )
