"""Downloads pinned packages for another architecture with apt-get and pip, on request.

Neither needs root, and neither changes this machine: apt-get works on lists of its own in a
temporary folder. A package that is already in the cache folder is not downloaded.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from hwnas.core.confined import read_regular
from hwnas.core.errors import UserError
from hwnas.core.store import write_bytes
from hwnas.devices.carried_parts import PYTHON, CarriedPart

__all__ = ["fetch_parts"]

log = logging.getLogger(__name__)

MAX_PART_BYTES = 256 * 1024 * 1024
TIMEOUT_S = 900.0
PLATFORMS = ("manylinux2014", "manylinux_2_17", "manylinux_2_27", "manylinux_2_28")
ABIS = ("cp311", "abi3", "none")


def fetch_parts(parts: Sequence[CarriedPart], folder: Path) -> dict[str, bytes]:
    """Maps the name of each package to the content of its file, which is checked by sha256.

    Packages that are not in `folder` are logged and downloaded into it. Files in `folder` may have
    any name.

    Raises:
        UserError: a download fails; names the packages to put into `folder` by hand.
    """
    found = _contents(parts, folder)
    missing = [part for part in parts if part.name not in found]
    for kind, download in (("deb", _apt_get), ("wheel", _pip)):
        wanted = [part for part in missing if part.kind == kind]
        if not wanted:
            continue
        with tempfile.TemporaryDirectory() as temporary:
            log.warning(
                "fetching for arm64 with %s into %s: %s (%.3g MB)",
                "apt-get from Debian" if kind == "deb" else "pip",
                folder,
                ", ".join(f"{part.name} {part.version} ({part.licence})" for part in wanted),
                sum(part.n_bytes for part in wanted) / 1e6,
            )
            said = download(wanted, Path(temporary))
            arrived = _contents(wanted, Path(temporary))
            for name, content in arrived.items():
                write_bytes(folder / _file_name(next(p for p in wanted if p.name == name)), content)
            found |= arrived
        if lacking := [part for part in wanted if part.name not in arrived]:
            raise _absent(lacking, folder, said)
    return found


def _contents(parts: Sequence[CarriedPart], folder: Path) -> dict[str, bytes]:
    """Files in `folder` that are one of `parts`, recognised by size and checksum."""
    sizes = {part.n_bytes for part in parts}
    by_digest: Mapping[str, CarriedPart] = {part.sha256: part for part in parts}
    found = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.is_file() and path.stat().st_size in sizes:
            content = read_regular(path, at_most=MAX_PART_BYTES)
            if part := by_digest.get(hashlib.sha256(content).hexdigest()):
                found[part.name] = content
    return found


def _apt_get(parts: Sequence[CarriedPart], folder: Path) -> str:
    """Downloads Debian packages with the package sources of this machine. Returns its error."""
    program = shutil.which("apt-get")
    if program is None:
        return "there is no apt-get on this machine"
    state = folder / "apt"
    for name in ("state/lists/partial", "cache/archives/partial"):
        (state / name).mkdir(parents=True)
    (state / "status").touch()
    options = {
        "Dir::State": state / "state",
        "Dir::State::status": state / "status",
        "Dir::Cache": state / "cache",
        "APT::Architecture": "arm64",
        "APT::Architectures::": "arm64",
        "APT::Sandbox::User": "",
        "Acquire::Languages": "none",
    }
    apt = [program, "-q", *(word for key in options for word in ("-o", f"{key}={options[key]}"))]
    _run([*apt, "update"], folder)  # sources that fail need not be those of the packages
    return _run([*apt, "download", *(f"{part.name}={part.version}" for part in parts)], folder)


def _pip(parts: Sequence[CarriedPart], folder: Path) -> str:
    """Downloads wheels for Linux on arm64. Returns pip's error."""
    words = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)]
    words += ["--only-binary=:all:", "--implementation", "cp", "--python-version", PYTHON]
    words += [word for abi in ABIS for word in ("--abi", abi)]
    words += [word for name in PLATFORMS for word in ("--platform", f"{name}_aarch64")]
    return _run([*words, *(f"{part.name}=={part.version}" for part in parts)], folder)


def _run(command: Sequence[str], folder: Path) -> str:
    """Runs a package client in `folder`; returns the problem that left packages missing."""
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        return f"{Path(command[0]).name} did not finish in time"
    if done.returncode == 0:
        return "other versions than these, or files with another sha256"
    said = [line for line in done.stderr.splitlines() if line.strip()]
    return said[-1][:200] if said else f"exit status {done.returncode}"


def _file_name(part: CarriedPart) -> str:
    suffix = ".deb" if part.kind == "deb" else ".whl"
    return f"{part.name}-{part.version}{suffix}".replace(":", "-")


def _absent(parts: Sequence[CarriedPart], folder: Path, found: str) -> UserError:
    names = ", ".join(f"{part.name} {part.version}" for part in parts)
    source = "Debian 12 (bookworm)" if parts[0].kind == "deb" else "PyPI"
    return UserError(
        "cannot download packages for arm64",
        expected=f"{names}, from {source}",
        found=found,
        where=folder,
        fix="download them for arm64 on a machine that can"
        + (" (`apt-get download` in Debian 12)" if parts[0].kind == "deb" else " (`pip download`)")
        + ", copy the files to this folder, and repeat the command",
    )
