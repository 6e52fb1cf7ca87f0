"""Runs commands on a remote device and transfers files, by ssh or adb."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shlex
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Protocol

from hwnas.core.env import cache_folder
from hwnas.core.errors import UserError
from hwnas.core.locks import exclusive_lock

__all__ = ["FULL", "LOST", "CommandFailed", "Reach", "Unreached", "alone", "call", "full_disk"]

CALL_TIMEOUT_S = 600.0
MOST_BYTES = 16 * 1024 * 1024  # limit of an output; the longest are profiles of benchmark_model
LOST = 255  # exit status of ssh itself, and of `adb shell` if the phone is gone
FULL = "No space left on device"
PACKAGES = {"ssh": "openssh-client"}  # of Debian, if they have another name than the program


class Unreached(UserError):
    """The device does not answer."""


class CommandFailed(UserError):
    """The device answers, and a command there ended with another status than 0."""


class Reach(Protocol):
    """Transfers commands and files to a device and back."""

    @property
    def where(self) -> str:
        """The device, for messages."""
        ...

    @property
    def identity(self) -> str:
        """Identifies the device, independent of the name under which it is reached."""
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
        UserError: the command is not installed, failed, took more than ten minutes, or its output
            is too long.
    """
    try:
        with contextlib.ExitStack() as stack:
            if into is not None:
                into.unlink(missing_ok=True)  # it can have other hard links
            stdout = subprocess.PIPE if into is None else stack.enter_context(open(into, "wb"))
            stdin = stdin or stack.enter_context(open(os.devnull, "rb"))
            process = subprocess.Popen(command, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE)
            answer, complaint = _output(process)
    except FileNotFoundError as error:
        package = PACKAGES.get(command[0], command[0])
        raise UserError(
            f"{command[0]} is not installed on this machine",
            where=where,
            fix=f"install it; in Debian: apt-get install {package}",
        ) from error
    except OSError as error:
        raise UserError(
            f"cannot run {command[0]}",
            found=error.strerror,
            where=where,
            fix=f"install {command[0]} again, or correct its permissions",
        ) from error
    except subprocess.TimeoutExpired as error:
        raise UserError(
            "a command on the device did not finish",
            expected=f"an end within {CALL_TIMEOUT_S / 60:.0f} minutes",
            found=f"still running: {shlex.join(command):.200}",
            where=where,
            fix="check that the device is connected and idle, then repeat the command",
        ) from error
    if max(len(answer), len(complaint)) > MOST_BYTES:
        raise UserError(
            "the output of the device is too long",
            expected=f"at most {MOST_BYTES // 2**20} MiB",
            found=f"a longer output, which begins with {(answer or complaint)[:100]!r}",
            where=where,
        )
    if process.returncode != 0:
        said = complaint.decode(errors="replace").strip()[-1000:]
        if FULL in said:
            raise full_disk(said, where)
        is_lost = process.returncode == LOST
        raise (Unreached if is_lost else CommandFailed)(
            "cannot reach the device" if is_lost else "a command failed on the device",
            found=said or f"exit status {process.returncode}",
            where=where,
            fix="check the connection to the device, then repeat the command" if is_lost else None,
        )
    return answer.decode(errors="replace")


def _output(process: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
    """What a process writes until it ends; after `MOST_BYTES` it is killed.

    Raises:
        subprocess.TimeoutExpired: it does not end, or a child of it keeps its output open.
    """
    found = [b"", b""]

    def read(place: int, stream: IO[bytes]) -> None:
        found[place] = stream.read(MOST_BYTES + 1)
        if len(found[place]) > MOST_BYTES:
            process.kill()
        stream.close()

    streams = enumerate((process.stdout, process.stderr))
    readers = [threading.Thread(target=read, args=one, daemon=True) for one in streams if one[1]]
    deadline = time.monotonic() + CALL_TIMEOUT_S
    try:
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join(max(0.0, deadline - time.monotonic()))
        process.wait(max(0.0, deadline - time.monotonic()))
        if any(reader.is_alive() for reader in readers):
            raise subprocess.TimeoutExpired(process.args, CALL_TIMEOUT_S)
    except BaseException:
        process.kill()
        process.wait()
        raise
    return found[0], found[1]


@contextlib.contextmanager
def alone(reach: Reach) -> Iterator[None]:
    """Reserves a device: two commands at once would stop or slow each other's kit.

    This works only among commands with the same cache folder. If the folder is not writable,
    nothing is prevented.

    Raises:
        UserError: another command is timing the device.
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
        fix="free space on the device (`hwnas clean --device FILE` lists files of earlier plans),"
        " or set another `folder` in the file of the device; earlier samples are kept",
    )
