"""Puts files on a remote device: the models and programs of a plan, and a runtime folder."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import re
import shlex
import tarfile
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from hwnas.core.errors import UserError
from hwnas.devices.carried import MACHINES, CarriedRuntime
from hwnas.devices.reach import Reach, call

__all__ = ["folder_of", "put_files", "put_runtime", "words"]

log = logging.getLogger(__name__)

TAR = "tar -xf kit.tar"


def put_files(
    reach: Reach,
    there: str,
    members: Sequence[tuple[Path, str]],
    *,
    first: str = "",
    extract: str = TAR,
) -> None:
    """Copies files into the folder `there` on the device, unless it already has the same files.

    members: files, and their names in that folder.
    first: shell commands that run in that folder before anything is copied.
    extract: the shell command that unpacks kit.tar in that folder.
    """
    digest = hashlib.sha256()
    for path, name in members:
        digest.update(name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    mark, quoted = f"installed-{digest.hexdigest()[:16]}", shlex.quote(there)
    look = f"cat {mark} 2>/dev/null || echo no"
    script = f"mkdir -p {quoted} && cd {quoted} || exit\n{first}\n{look}"
    if words(reach, script, "yes|no") == ["yes"]:
        return
    with TemporaryDirectory() as folder:
        archive = Path(folder, "kit.tar")
        with tarfile.open(archive, "w") as tar:
            for path, name in members:
                tar.add(path, name)
        install = f"rm -f installed-* && {extract} && rm kit.tar && echo yes > {mark}"
        _send(reach, there, archive, "kit.tar", install=install, made="kit.tar")


def folder_of(carried: CarriedRuntime) -> str:
    """Name of a runtime folder on devices."""
    return f"runtime-{carried.digest}"


def put_runtime(reach: Reach, folder: str, carried: CarriedRuntime) -> None:
    """Copies Python and a runtime into `folder`, unless the device has this version already.

    Raises:
        UserError: the device has another architecture or a full disk, or the cache lacks the file.
    """
    name, quoted = folder_of(carried), shlex.quote(folder)
    look = f"uname -m; [ -f {name}/python3 ] && echo yes || echo no"
    script = f"mkdir -p {quoted} && cd {quoted} || exit\n{look}"
    machine, is_there = words(reach, script, "[A-Za-z0-9_.-]+ (?:yes|no)")
    if machine not in MACHINES[carried.architecture]:
        raise UserError(
            f"the device is not an {carried.architecture} machine",
            expected=f"`uname -m` to print {' or '.join(MACHINES[carried.architecture])}",
            found=machine,
            where=reach.where,
            fix="install the runtime on the device, and set `python` in the file of the device to"
            " its interpreter",
        )
    if is_there == "yes":
        return
    archive, part = carried.archive, f"{name}.part"
    megabytes = archive.stat().st_size / 1e6
    log.warning(
        "copying Python and %s (%.0f MB) to %s; later commands use this copy",
        carried.runtime,
        megabytes,
        reach.where,
    )
    unpack = f"rm -rf {part} {name} && mkdir {part} && tar -xf {name}.tar -C {part}"
    install = f"{unpack} && rm {name}.tar && mv {part} {name}"
    _send(reach, folder, archive, f"{name}.tar", install=install, made=f"{name}.tar {part}")


def _send(reach: Reach, there: str, archive: Path, name: str, *, install: str, made: str) -> None:
    """Copies an archive into the folder `there` and runs the command that unpacks it.

    made: files and folders that are removed if this fails, because they may fill the disk.
    """
    begin = f"cd {shlex.quote(there)}"
    try:
        reach.push(archive, f"{there}/{name}")
        call(reach.command(f"{begin} && {install}"), where=reach.where)
    except UserError:
        with contextlib.suppress(UserError):
            call(reach.command(f"{begin} && rm -rf {made}"), where=reach.where)
        raise


def words(reach: Reach, script: str, pattern: str) -> list[str]:
    """Runs a script on the device, and returns its output as words.

    pattern: regular expression that must match the whole output, with words joined by one space.

    Raises:
        UserError: the output does not match.
    """
    found = call(reach.command(script), where=reach.where).split()
    if not re.fullmatch(pattern, " ".join(found)):
        raise UserError(
            "unexpected output from the remote shell",
            expected="only the output of the command, words that match the regular expression"
            f" `{pattern}`",
            found=" ".join(found)[:200],
            where=reach.where,
            fix="make the shell of the device print nothing when it starts",
        )
    return found
