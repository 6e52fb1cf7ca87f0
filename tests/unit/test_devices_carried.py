"""The folder that brings Python and a runtime: its packages, its layout, its download."""

from __future__ import annotations

import hashlib
import io
import os
import re
import subprocess
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

import hwnas
from hwnas.core.errors import UserError
from hwnas.devices import carried as module
from hwnas.devices.carried import CarriedRuntime, carried_runtime
from hwnas.devices.carried_fetch import fetch_parts
from hwnas.devices.carried_parts import CarriedPart, parts_of
from hwnas.devices.spec import load_transport
from hwnas.interfaces import FetchingTransport
from tests.boards import imitate_carried


def deb(files: dict[str, bytes], links: dict[str, str] | None = None) -> bytes:
    """A Debian package: an `ar` archive with a compressed tar in it."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:xz") as tar:
        for name, content in files.items():
            header = tarfile.TarInfo(f"./{name}")
            header.size = len(content)
            tar.addfile(header, io.BytesIO(content))
        for name, target in (links or {}).items():
            header = tarfile.TarInfo(f"./{name}")
            header.type, header.linkname = tarfile.SYMTYPE, target
            tar.addfile(header)
    parts = {"debian-binary": b"2.0\n", "control.tar.xz": b"odd", "data.tar.xz": data.getvalue()}
    found = b"!<arch>\n"
    for name, content in parts.items():
        found += f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode()
        found += content + b"\n" * (len(content) % 2)
    return found


def wheel(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


LIBRARY = "usr/lib/aarch64-linux-gnu"
CONTENTS = {
    "libx1": deb(
        {f"{LIBRARY}/libx.so.1.2": b"shared", "usr/share/doc/libx1/copyright": b"free"},
        {f"{LIBRARY}/libx.so.1": "libx.so.1.2"},
    ),
    "python": deb(
        {
            "usr/bin/python3.11": b"program",
            "usr/lib/python3.11/os.py": b"module",
            "usr/lib/python3.11/test/test_os.py": b"left out",
            "etc/python3.11/sitecustomize.py": b"left out",
        },
        {"usr/lib/python3.11/sitecustomize.py": "/etc/python3.11/sitecustomize.py"},
    ),
    "numpy": wheel(
        {"numpy/core.so": b"extension", "numpy/tests/x.py": b"left out", "numpy/x.pyi": b"no"}
    ),
}


def part(name: str, **changes: object) -> CarriedPart:
    content = CONTENTS[name]
    kind = "wheel" if name == "numpy" else "deb"
    made = CarriedPart(
        *(name, "1:2.0", hashlib.sha256(content).hexdigest(), len(content), "MIT", kind),
        libraries=("libx.so.1",) if name == "libx1" else (),
        left_out=("/tests/", ".pyi") if kind == "wheel" else (),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


@pytest.fixture
def carried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CarriedRuntime:
    """A folder of three small packages, which lie in the cache under odd names."""
    monkeypatch.setenv("HWNAS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "parts_of", lambda runtime: tuple(map(part, CONTENTS)))
    there = tmp_path / "cache" / "devices"
    there.mkdir(parents=True)
    for number, content in enumerate(CONTENTS.values()):
        (there / f"download ({number})").write_bytes(content)
    return CarriedRuntime("arm64", "onnxruntime")


def test_the_folder_holds_libraries_python_and_wheels(carried: CarriedRuntime) -> None:
    with pytest.raises(
        UserError, match=r"(?s)no intact archive of Python.*found: no file.*--fetch"
    ):
        _ = carried.archive
    carried.fetch()
    members = {name: (content, runs) for name, content, runs in carried.members()}
    readme, launcher = members.pop("README")[0].decode(), members.pop("python3")
    assert members == {
        "lib/libx.so.1": (b"shared", False),
        "licences/libx1": (b"free", False),
        "python3.11": (b"program", True),
        "lib/python3.11/os.py": (b"module", False),
        "packages/numpy/core.so": (b"extension", False),
    }
    assert launcher[1] and launcher[0].startswith(b"#!/bin/sh\n")
    assert "libx1 1:2.0 (MIT), sha256" in readme
    before = carried.archive.read_bytes()
    carried.archive.unlink()
    assert carried.fetch().read_bytes() == before, "the same bytes each time"


def test_a_download_gets_what_is_missing_and_checks_it(
    carried: CarriedRuntime,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """By imitations of both clients; apt-get gets no lists and no state of this machine."""
    there = tmp_path / "cache" / "devices"
    for path in there.iterdir():
        path.unlink()
    (tmp_path / "bin").mkdir()
    (tmp_path / "served").mkdir()
    for name in ("libx1", "python"):
        (tmp_path / "served" / f"{name}.deb").write_bytes(CONTENTS[name])
    apt = tmp_path / "bin" / "apt-get"
    apt.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/apt\n'
        f'case "$*" in *" download "*) cp {tmp_path}/served/* . ;; *) exit 100 ;; esac\n'
    )
    apt.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    with pytest.raises(UserError, match=r"(?s)cannot download packages.*numpy 1:2.0, from PyPI"):
        carried.fetch()  # there is no such version there, or no network
    assert "libx1 1:2.0 (MIT), python 1:2.0 (MIT)" in caplog.text
    update, download = (tmp_path / "apt").read_text().splitlines()
    assert " update" in update and download.endswith("download libx1=1:2.0 python=1:2.0")
    assert "Dir::State=" in download and "APT::Architecture=arm64" in download
    kept = sorted(path.name for path in there.iterdir())
    assert kept == ["libx1-1-2.0.deb", "python-1-2.0.deb"], "what arrived is not fetched again"


def test_another_package_of_the_same_name_is_not_taken(
    carried: CarriedRuntime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = tmp_path / "cache" / "devices"
    changed = CONTENTS["libx1"][:-2] + b"!!"
    (there / "download (0)").write_bytes(changed)
    (tmp_path / "bin").mkdir()
    apt = tmp_path / "bin" / "apt-get"
    apt.write_text(f"#!/bin/sh\ncp '{there}/download (0)' libx1.deb\n")
    apt.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    with pytest.raises(UserError, match=r"(?s)libx1 1:2.0, from Debian 12.*other versions than"):
        carried.fetch()
    assert not list(there.glob("*.tar"))


def test_without_apt_get_the_packages_are_named(
    carried: CarriedRuntime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"(?s)libx1.*no apt-get.*copy the files to this folder"):
        fetch_parts([part("libx1")], tmp_path / "empty")


def test_the_launcher_refuses_another_architecture(tmp_path: Path) -> None:
    """As in a packed kit, whose files lost their permissions."""
    launcher = tmp_path / "runtime" / "python3"
    launcher.parent.mkdir()
    launcher.write_text(module.LAUNCHER)
    (tmp_path / "bin").mkdir()
    uname = tmp_path / "bin" / "uname"
    uname.write_text("#!/bin/sh\necho riscv64\n")
    uname.chmod(0o755)
    environment = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    done = subprocess.run(["sh", str(launcher)], capture_output=True, text=True, env=environment)
    assert done.returncode == 1
    assert "is for arm64 (aarch64), this machine is riscv64" in done.stderr


@pytest.mark.parametrize("runtime", ["onnxruntime", "litert"])
def test_every_package_is_pinned(runtime: str) -> None:
    parts = parts_of(runtime)
    assert len({one.name for one in parts}) == len(parts) > 10
    for one in parts:
        assert re.fullmatch("[0-9a-f]{64}", one.sha256) and one.n_bytes > 1000 and one.licence
    names = {library for one in parts for library in one.libraries}
    assert {"ld-linux-aarch64.so.1", "libc.so.6", "libstdc++.so.6"} <= names


def test_what_has_no_folder_is_refused(tmp_path: Path, tiny_space: hwnas.SearchSpace) -> None:
    wanted = r"(?s)architecture 'amd64'.*expected: arm64.*fix: .*leave --with-runtime out"
    with pytest.raises(UserError, match=wanted):
        carried_runtime("amd64", "litert")
    asked = {"space": tiny_space, "out": tmp_path / "kit.zip"}
    with pytest.raises(UserError, match=r"(?s)no Python with torch.*leave --with-runtime out"):
        hwnas.profile_pack("local_torch", with_runtime="arm64", **asked)
    with pytest.raises(UserError, match=r"found: neither\n  fix: see `hwnas space list`"):
        hwnas.profile_pack("local", out=tmp_path / "kit.zip")
    with pytest.raises(UserError, match=r"(?s)--with-runtime does not apply to a CSV list"):
        hwnas.profile_pack(
            "local", with_runtime="arm64", space=tiny_space, out=tmp_path / "list.csv"
        )


def test_a_board_over_ssh_takes_its_runtime_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--fetch` makes the folder; a board that has a Python needs none."""
    monkeypatch.setenv("HWNAS_CACHE", str(tmp_path / "cache"))
    text = "schema_version: 1\ntransport: {name: ssh, host: board, with_runtime: arm64}\n"
    (tmp_path / "board.yaml").write_text(text)
    transport = load_transport(str(tmp_path / "board.yaml"))
    assert isinstance(transport, FetchingTransport)
    imitate_carried(tmp_path / "cache", monkeypatch)
    transport.fetch()  # it is there already
    (tmp_path / "board.yaml").write_text("schema_version: 1\ntransport: {name: ssh, host: b}\n")
    with pytest.raises(UserError, match=r"(?s)no download.*with_runtime: arm64"):
        hwnas.profile(str(tmp_path / "board.yaml"), "mobilenet_tiny", fetch=True)
