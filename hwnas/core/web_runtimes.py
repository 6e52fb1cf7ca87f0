"""The files of runtimes for browsers: pinned npm packages in the cache, downloaded on request.

The files are not part of hwnas. A page that times or runs a model loads them from this machine,
never from a server on the internet.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hwnas.core.confined import read_regular
from hwnas.core.env import cache_folder
from hwnas.core.errors import UserError
from hwnas.core.store import explained, write_bytes
from hwnas.core.text import visible

__all__ = [
    "RUNTIMES",
    "WebPackage",
    "WebRuntime",
    "fetch_runtime",
    "not_fetched",
    "runtime_folder",
]

log = logging.getLogger(__name__)

MAX_ARCHIVE_BYTES = 256 * 1024 * 1024
MAX_MEMBER_BYTES = 64 * 1024 * 1024
TIMEOUT_S = 900.0


@dataclass(frozen=True)
class WebPackage:
    """An npm package of one version, identified by the sha256 of its archive.

    files: maps paths in the archive to file names in the cache. replaced: (old, new) text; hwnas
    replaces the old text in the first file.
    """

    name: str
    version: str
    sha256: str
    n_bytes: int
    licence: str
    files: Mapping[str, str]
    replaced: tuple[str, str] = ("", "")

    @property
    def archive(self) -> str:
        """File name of the archive, as npm writes it."""
        return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}.tgz"


@dataclass(frozen=True)
class WebRuntime:
    """A runtime for browsers and its npm packages; its version is that of the first package."""

    packages: tuple[WebPackage, ...]

    @property
    def version(self) -> str:
        """Name and version of the main package."""
        return f"{self.packages[0].name} {self.packages[0].version}"

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the files in the cache."""
        return tuple(name for package in self.packages for name in package.files.values())

    @property
    def digest(self) -> str:
        """Hash that identifies the packages and files, 12 hex digits."""
        return hashlib.sha256(repr(self).encode()).hexdigest()[:12]


_UTILS = "litert_wasm_utils.js"
RUNTIMES: Mapping[str, WebRuntime] = {
    "litert": WebRuntime(
        (
            WebPackage(
                "@litertjs/core",
                "2.5.3",
                "a97660833e9e7e1063c95e12016718881240b14f7438728a2f62785e912d30fd",
                11_817_097,
                "Apache-2.0",
                {
                    "package/dist/index.js": "litert.js",
                    **{
                        f"package/wasm/{name}{suffix}": f"{name}{suffix}"
                        for name in ("litert_wasm_internal", "litert_wasm_compat_internal")
                        for suffix in (".js", ".wasm")
                    },
                },
                ('"@litertjs/wasm-utils"', f'"./{_UTILS}"'),  # browsers only find paths
            ),
            WebPackage(
                "@litertjs/wasm-utils",
                "2.5.3",
                "ce2a1f8379c067be49e59752e5a7f40db6be09f6e497f0f11e59f17b515366a7",
                5_000,
                "Apache-2.0",
                {"package/dist/index.js": _UTILS},
            ),
        )
    ),
    "onnxruntime": WebRuntime(
        (
            WebPackage(
                "onnxruntime-web",
                "1.30.0",
                "d2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71",
                33_106_585,
                "MIT",
                {
                    f"package/dist/{name}": name
                    for name in (
                        "ort.wasm.min.mjs",
                        "ort-wasm-simd-threaded.mjs",
                        "ort-wasm-simd-threaded.wasm",
                    )
                },
            ),
        )
    ),
}
"""Maps the `runtime` of a device to the runtime for browsers."""


def runtime_folder(name: str) -> Path:
    """The folder with the files of a runtime in the cache.

    Raises:
        UserError: there is no such runtime for browsers, or its files are not in the cache; names
            the command that downloads them.
    """
    folder = _folder(_runtime(name))
    if not _is_whole(_runtime(name), folder):
        raise _absent(name, folder)
    return folder


def not_fetched(name: str) -> str:
    """Why the files of a runtime cannot be used before `fetch_runtime`; empty if they can."""
    if _is_whole(_runtime(name), _folder(_runtime(name))):
        return ""
    return f"the files of {_runtime(name).version} for browsers are not in the cache"


def fetch_runtime(name: str) -> Path:
    """Like `runtime_folder`, but downloads missing files with npm, after logging names and sizes.

    An archive that is already in the cache folder is not downloaded.

    Raises:
        UserError: no npm, no network, or an archive that is not the pinned one.
    """
    runtime = _runtime(name)
    folder = _folder(runtime)
    if _is_whole(runtime, folder):
        return folder
    with explained("store a runtime for browsers", folder):
        contents = {
            target: content
            for package in runtime.packages
            for target, content in _members(package, _archive(name, package, folder.parent)).items()
        }
        for target, content in contents.items():
            write_bytes(folder / target, content)
    return folder


def _is_whole(runtime: WebRuntime, folder: Path) -> bool:
    return all((folder / name).is_file() for name in runtime.files)


def _runtime(name: str) -> WebRuntime:
    if name not in RUNTIMES:
        raise UserError(
            f"unknown runtime for browsers {name!r}", expected=f"one of {', '.join(RUNTIMES)}"
        )
    return RUNTIMES[name]


def _folder(runtime: WebRuntime) -> Path:
    main = runtime.packages[0]
    short = main.name.removeprefix("@").replace("/", "-")
    return cache_folder() / "web" / f"{short}-{main.version}-{runtime.digest}"


def _absent(name: str, folder: Path, found: str = "no such files in the cache") -> UserError:
    packages = RUNTIMES[name].packages
    by_hand = " ".join(f"{one.name}@{one.version}" for one in packages)
    return UserError(
        f"the files of {RUNTIMES[name].version} for browsers are not on this machine",
        found=found,
        where=folder,
        fix="repeat `hwnas export` or `hwnas profile` with --fetch (in Python, `hwnas.export` or"
        " `hwnas.profile` with fetch=True), which needs npm and a network; without a network, run"
        f" `npm pack {by_hand}` on another machine, copy the archives to {folder.parent}, and then"
        " use --fetch here",
    )


def _archive(name: str, package: WebPackage, folder: Path) -> bytes:
    """The archive of a package: from the folder, or from npm."""
    given = folder / package.archive
    if given.is_file():
        return _checked(read_regular(given, at_most=MAX_ARCHIVE_BYTES), package, given)
    npm = shutil.which("npm")
    if npm is None:
        raise _absent(name, folder / "-", "npm is not installed")
    log.warning(
        "fetching %s %s with npm: %.3g MB, licence %s, into %s",
        *(package.name, package.version, package.n_bytes / 1e6, package.licence, folder),
    )
    with tempfile.TemporaryDirectory() as temporary:
        command = [npm, "pack", "--ignore-scripts", "--silent", "--pack-destination", temporary]
        command.append(f"{package.name}@{package.version}")
        try:
            done = subprocess.run(
                command,
                cwd=temporary,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=TIMEOUT_S,
            )
        except subprocess.TimeoutExpired as error:
            raise _absent(name, folder / "-", f"npm did not finish within {TIMEOUT_S} s") from error
        except OSError as error:
            raise _absent(name, folder / "-", f"npm cannot be started: {error.strerror}") from error
        path = Path(temporary, package.archive)
        if done.returncode != 0 or not path.is_file():
            said = done.stderr.strip().splitlines()[:1] or [f"exit status {done.returncode}"]
            raise _absent(name, folder / "-", f"npm: {visible(said[0])[:200]}")
        return _checked(read_regular(path, at_most=MAX_ARCHIVE_BYTES), package, path)


def _checked(content: bytes, package: WebPackage, path: Path) -> bytes:
    if hashlib.sha256(content).hexdigest() != package.sha256:
        raise UserError(
            f"the archive of {package.name} {package.version} has unexpected content",
            expected="the content that the package registry npm has for this version",
            found="other content: its sha256 is different",
            where=path,
            fix="delete this file if it exists, and use --fetch again",
        )
    return content


def _members(package: WebPackage, content: bytes) -> dict[str, bytes]:
    """Content by name in the cache; the archive has been checked."""
    found: dict[str, bytes] = {}
    with tempfile.TemporaryFile() as stream:
        stream.write(content)
        stream.seek(0)
        with tarfile.open(fileobj=stream, mode="r:gz") as archive:
            for name, target in package.files.items():
                member = archive.extractfile(name)
                assert member is not None, name
                found[target] = member.read(MAX_MEMBER_BYTES)
    old, new = package.replaced
    if old:
        first = next(iter(found))
        found[first] = found[first].replace(old.encode(), new.encode())
    return found
