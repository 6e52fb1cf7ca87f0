"""A folder that brings Python and a runtime to a device.

The device needs nothing but a Linux kernel. The folder holds the C library, Python, numpy and the
runtime, taken from pinned packages of Debian and PyPI. Its script `python3` starts this Python with
the C library of the folder, so it runs on a board without pip and in `adb shell`, without root and
without Termux. The packages are downloaded on request with apt-get and pip, into the cache. There,
the folder is kept as one tar file.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from hwnas.core.beside import replacing
from hwnas.core.env import cache_folder
from hwnas.core.errors import UserError
from hwnas.core.store import explained
from hwnas.devices.carried_fetch import fetch_parts
from hwnas.devices.carried_parts import ARCHITECTURES, PYTHON, CarriedPart, parts_of

__all__ = ["FOLDER", "MACHINES", "CarriedRuntime", "carried_runtime"]

FOLDER = "runtime"
"""Name of the folder in a packed kit."""

MACHINES: dict[str, tuple[str, ...]] = {"arm64": ("aarch64", "arm64", "armv8l", "armv8b")}
"""Maps an architecture to the values that `uname -m` can print on its devices.

64-bit kernels with 32-bit shells print `armv8l` or `armv8b`.
"""

LOADER = "lib/ld-linux-aarch64.so.1"
EXECUTABLES = (LOADER, f"python{PYTHON}", "python3")
LAUNCHER = f"""#!/bin/sh
# Starts the Python of this folder with the C library of this folder.
here=$(cd "$(dirname "$0")" && pwd) || exit
case $(uname -m) in
  {"|".join(MACHINES["arm64"])}) ;;
  *)
    echo "this runtime folder is for arm64 (aarch64), this machine is $(uname -m)" >&2
    exit 1
    ;;
esac
for file in {" ".join(EXECUTABLES)}; do
  [ -x "$here/$file" ] || chmod 755 "$here/$file" || exit
done
unset LD_LIBRARY_PATH LD_PRELOAD
export PYTHONHOME="$here" PYTHONPATH="$here/packages" PYTHONNOUSERSITE=1 PYTHONUTF8=1
export PYTHONDONTWRITEBYTECODE=1 TMPDIR="${{TMPDIR:-$here}}"
exec "$here/{LOADER}" --library-path "$here/lib" --argv0 "$here/python3" "$here/python{PYTHON}" "$@"
"""
README = f"""This folder brings Python {PYTHON} and a runtime to Linux and Android on arm64. It
needs no other file of the device:

    sh runtime/python3 bench.py plan.json --out results.jsonl

Its files are parts of these packages of Debian 12 and PyPI, unchanged (`licences`, and
`packages/*.dist-info`, hold their licences; their sources are at Debian and PyPI):

"""
DEBIAN_LIBRARIES = ("lib/aarch64-linux-gnu", "usr/lib/aarch64-linux-gnu")
STANDARD_LIBRARY = f"usr/lib/python{PYTHON}/"
NOT_NEEDED = ("/test/", "/idlelib/", "/tkinter/", "/turtledemo/", "/ensurepip/", "/__pycache__/")
MAX_MEMBER_BYTES = 128 * 1024 * 1024


@dataclass(frozen=True)
class CarriedRuntime:
    """The folder for one runtime and one architecture, as a tar file in the cache.

    architecture: `arm64`.
    runtime: name of a runtime of the kit.
    """

    architecture: str
    runtime: str

    @property
    def parts(self) -> tuple[CarriedPart, ...]:
        """The packages that the folder is made from."""
        return parts_of(self.runtime)

    @property
    def digest(self) -> str:
        """Identifies packages and layout; part of the name of the folder on devices."""
        return hashlib.sha256(f"{self.parts}{LAUNCHER}{NOT_NEEDED}".encode()).hexdigest()[:16]

    @property
    def path(self) -> Path:
        """Where the tar file is, or will be."""
        name = f"{self.architecture}-{self.runtime}-{self.digest}.tar"
        return cache_folder() / "devices" / name

    @property
    def archive(self) -> Path:
        """The tar file.

        Raises:
            UserError: the file is not in the cache; the error names the command that makes it.
        """
        path = self.path
        if self._is_whole():
            return path
        raise UserError(
            f"there is no intact archive of Python and {self.runtime} for {self.architecture} in"
            " the cache",
            found="a damaged file" if path.exists() else "no file",
            where=path,
            fix="add --fetch to `hwnas profile DEVICE`, which downloads"
            f" {self.n_bytes / 1e6:.0f} MB with apt-get and pip",
        )

    @property
    def n_bytes(self) -> int:
        """Size of the downloaded packages."""
        return sum(part.n_bytes for part in self.parts)

    def fetch(self) -> Path:
        """Like `archive`, but downloads the packages and makes the tar file if it is missing.

        Raises:
            UserError: a download fails; explains how to get the packages by hand.
        """
        path = self.path
        if self._is_whole():
            return path
        with explained("store a runtime for devices", path):
            path.parent.mkdir(parents=True, exist_ok=True)
            contents = fetch_parts(self.parts, path.parent)
            with replacing(path) as stream:
                _write(stream, list(self._members(contents)))
        return path

    def _is_whole(self) -> bool:
        try:
            with tarfile.open(self.path, "r:") as tar:
                return all(member.isfile() for member in tar)
        except (OSError, tarfile.TarError):
            return False

    def members(self) -> Iterator[tuple[str, bytes, bool]]:
        """Every file of the folder: path, content, and whether it is executable.

        Raises:
            UserError: as in `archive`.
        """
        with tarfile.open(self.archive, "r:") as tar:
            for member in tar:
                stream = tar.extractfile(member)
                assert stream is not None, member.name
                yield member.name, stream.read(), bool(member.mode & 0o100)

    def _members(self, contents: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        yield "python3", LAUNCHER.encode()
        lines = [f"{p.name} {p.version} ({p.licence}), sha256 {p.sha256}\n" for p in self.parts]
        yield "README", (README + "".join(lines)).encode()
        for part in self.parts:
            members = _deb_members if part.kind == "deb" else _wheel_members
            yield from members(part, contents[part.name])


def carried_runtime(architecture: str, runtime: str) -> CarriedRuntime:
    """The folder for an architecture and a runtime of the kit.

    Raises:
        UserError: there is no such folder.
    """
    if architecture not in ARCHITECTURES:
        raise UserError(
            f"hwnas has no Python and runtime to copy to a device of architecture {architecture!r}",
            expected=" or ".join(ARCHITECTURES),
            fix="install Python and the runtime on the device, and leave --with-runtime out",
        )
    try:
        parts_of(runtime)
    except KeyError as error:
        raise UserError(
            f"hwnas has no Python with {runtime} to copy to a device",
            expected="runtime: onnxruntime or litert",
            fix="install Python and the runtime on the device, and set `python` in the file of the"
            " device to its interpreter; for a packed kit, leave --with-runtime out",
        ) from error
    return CarriedRuntime(architecture, runtime)


def _write(stream: IO[bytes], members: Sequence[tuple[str, bytes]]) -> None:
    """Writes a tar file of plain files, the same bytes each time."""
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in sorted(dict(members).items()):
            header = tarfile.TarInfo(name)
            header.size = len(content)
            header.mode = 0o755 if name in EXECUTABLES else 0o644
            tar.addfile(header, io.BytesIO(content))


def _wheel_members(part: CarriedPart, content: bytes) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for info in archive.infolist():
            if not info.is_dir() and not _is_left_out(info.filename, part.left_out):
                yield f"packages/{info.filename}", archive.read(info)


def _is_left_out(name: str, left_out: Sequence[str]) -> bool:
    return any(
        word in f"/{name}" if word.startswith("/") else name.endswith(word) for word in left_out
    )


def _deb_members(part: CarriedPart, content: bytes) -> Iterator[tuple[str, bytes]]:
    """Shared libraries by the names that programs ask for, Python, and the licence."""
    with tarfile.open(fileobj=io.BytesIO(_data_of_deb(content)), mode="r:xz") as tar:
        files = {str(PurePosixPath(member.name)): member for member in tar}

        def read(name: str) -> bytes:
            member = files[name]
            if member.issym():
                return read(str(PurePosixPath(name).parent / member.linkname))
            stream = tar.extractfile(member)
            assert stream is not None, name
            return stream.read(MAX_MEMBER_BYTES)

        for library in part.libraries:
            places = [f"{folder}/{library}" for folder in DEBIAN_LIBRARIES]
            yield f"lib/{library}", read(next(place for place in places if place in files))
        for name, member in files.items():
            if name == f"usr/bin/python{PYTHON}":
                yield f"python{PYTHON}", read(name)
            elif name == f"usr/share/doc/{part.name}/copyright" and member.isfile():
                yield f"licences/{part.name}", read(name)
            elif (
                name.startswith(STANDARD_LIBRARY)
                and member.isfile()
                and not _is_left_out(name, NOT_NEEDED)
            ):
                yield name.removeprefix("usr/"), read(name)


def _data_of_deb(content: bytes) -> bytes:
    """`data.tar.xz` of a Debian package, which is an `ar` archive; its checksum is known."""
    position = len(b"!<arch>\n")
    while position < len(content):
        header = content[position : position + 60]
        name, size = header[:16].decode().rstrip(" /"), int(header[48:58])
        position += 60
        if name == "data.tar.xz":
            return content[position : position + size]
        position += size + size % 2
    raise ValueError("no data.tar.xz")  # impossible: the package is pinned
