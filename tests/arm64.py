"""An empty root in which programs for arm64 run: qemu's user mode, /proc, and what a test puts in.

`EmptyRoot.python` starts one program under qemu, without any shell. `EmptyRoot.shell` has the shell
and the folders of a phone, and programs there start others; the kernel calls qemu for them
(binfmt_misc of a user namespace of its own, Linux 6.7 or later), so nothing else changes.

Correctness only: timings under an emulator mean nothing. /sys stays out, because runtimes read the
processors of the host there and crash.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from hwnas.core.errors import UserError
from hwnas.devices.carried import CarriedRuntime, carried_runtime
from hwnas.devices.carried_fetch import fetch_parts
from hwnas.devices.carried_parts import CarriedPart

__all__ = ["EmptyRoot", "carried_or_skip", "empty_root_or_skip"]

QEMU = shutil.which("qemu-aarch64-static")
IN_ROOT = 'mount --bind /proc "$1/proc" && exec chroot "$@"'
ARM64_PROGRAMS = (  # 64-bit ELF files for arm64, executables and shared objects
    r":arm64:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
    r":\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"
)
EMULATED = f"""
mount -t binfmt_misc none "$1/binfmt" || exit 125
printf %s '{ARM64_PROGRAMS}:{QEMU}:FP' > "$1/binfmt/register" || exit 125
mount --bind /dev/null "$1/dev/null" || exit 125
{IN_ROOT}
"""
BUSYBOX = CarriedPart(
    "busybox-static",
    "1:1.35.0-4+deb12u1+b1",
    "732c9135564fc71337e0e05fb4da4d11e6c28c1834bce3e405e575afef2a52f5",
    822_236,
    "GPL-2.0-only",
    "deb",
)
"""Stands for the shell and the tools of a phone."""
TOOLS = (
    *("sh", "cat", "chmod", "cut", "dirname", "du", "env", "grep", "head", "kill", "ls", "mkdir"),
    *("mv", "rm", "rmdir", "sed", "sleep", "tar", "taskset", "uname", "wc"),
)
ADB = """#!/bin/sh
root={root}
[ "$1" != -s ] || shift 2
verb=$1
shift
case $verb in
  devices) echo "List of devices attached"; echo "EMULATED	device" ;;
  shell) exec unshare -r -m sh -c {emulated} sh "$root" /system/bin/sh -c "PATH=/system/bin
$*" ;;
  push) cp "$1" "$root$2" ;;
  pull) cp "$root$1" "$2" ;;
  *) exit 1 ;;
esac
"""


def carried_or_skip(runtime: str) -> CarriedRuntime:
    """The folder with Python and a runtime; the test skips if its packages cannot be had."""
    carried = carried_runtime("arm64", runtime)
    try:
        carried.fetch()
    except UserError as error:
        pytest.skip(f"no packages for arm64: {error}")
    return carried


@dataclass(frozen=True)
class EmptyRoot:
    """A folder that is the whole file system of a program."""

    folder: Path

    def unpack(self, carried: CarriedRuntime, place: str) -> None:
        """Puts a runtime folder at `place`, such as `kit/runtime`."""
        there = self.folder / place
        there.mkdir(parents=True)
        subprocess.run(["tar", "-xf", str(carried.archive), "-C", str(there)], check=True)

    def python(self, runtime: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs the Python of the runtime folder at `runtime`, as its script `python3` does.

        arguments: with paths as seen from this root.
        """
        command, environment = self._started(runtime)
        emulator = ["/qemu", *(word for pair in environment for word in ("-E", pair))]
        flags = ["-m"] if os.geteuid() == 0 else ["-r", "-m"]
        return subprocess.run(
            ["unshare", *flags, "sh", "-c", IN_ROOT, "sh", str(self.folder)]
            + [*emulator, *command, *arguments],
            capture_output=True,
            text=True,
            env={"PATH": os.environ["PATH"]},
        )

    def add_shell_or_skip(self) -> None:
        """Puts a shell and tools for arm64 where Android has them; there is no /bin."""
        packages = self.folder.with_name("packages")
        packages.mkdir()
        try:
            fetch_parts([BUSYBOX], packages)
        except UserError as error:
            pytest.skip(f"no shell for arm64: {error}")
        (package,) = packages.iterdir()
        subprocess.run(["dpkg-deb", "-x", str(package), str(packages / "files")], check=True)
        tools = self.folder / "system" / "bin"
        tools.mkdir(parents=True)
        (self.folder / "binfmt").mkdir()
        (self.folder / "dev").mkdir()
        (self.folder / "dev" / "null").touch()
        shutil.copy(packages / "files" / "bin" / "busybox", tools)
        for name in TOOLS:
            (tools / name).symlink_to("busybox")
        if self.shell("uname -m").returncode == 125:
            pytest.skip("this kernel has no binfmt_misc of user namespaces (Linux 6.7 or later)")

    def shell(self, script: str) -> subprocess.CompletedProcess[str]:
        """Runs a script in the shell of `add_shell_or_skip`."""
        command = ["/system/bin/sh", "-c", f"PATH=/system/bin\n{script}"]
        return subprocess.run(
            ["unshare", "-r", "-m", "sh", "-c", EMULATED, "sh", str(self.folder), *command],
            capture_output=True,
            text=True,
            env={"PATH": os.environ["PATH"]},
        )

    def as_phone(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Makes this root, with its shell, the phone of an `adb` on the PATH."""
        (self.folder / "data" / "local" / "tmp").mkdir(parents=True)
        folder.mkdir()
        text = ADB.format(root=shlex.quote(str(self.folder)), emulated=shlex.quote(EMULATED))
        (folder / "adb").write_text(text)
        (folder / "adb").chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def _started(self, runtime: str) -> tuple[list[str], list[str]]:
        """The command that `python3` ends in on an arm64 machine, and its environment."""
        launcher = self.folder / runtime / "python3"
        changed = launcher.with_name("shows")
        text = launcher.read_text().replace("\nexec ", "\nprintf '%s\\n' ")
        assert text != launcher.read_text()
        changed.write_text(f"uname() {{ echo aarch64; }}\n{text}echo\nenv\n")
        done = subprocess.run(
            ["sh", str(changed)], env={"PATH": os.environ["PATH"]}, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        seen = done.stdout.replace(str(self.folder), "")
        command, _, environment = seen.partition("\n\n")
        kept = [line for line in environment.splitlines() if line.startswith("PYTHON")]
        return command.splitlines(), kept


def empty_root_or_skip(folder: Path) -> EmptyRoot:
    """An empty root in `folder`; the test skips where there is no emulator or no namespaces."""
    if QEMU is None:
        pytest.skip("no qemu-aarch64-static: apt-get install qemu-user-static")
    if shutil.which("unshare") is None or not _can_change_root(folder):
        pytest.skip("no namespaces with a root of their own here (unshare)")
    root = folder / "root"
    for name in ("proc", "tmp"):
        (root / name).mkdir(parents=True)
    shutil.copy(QEMU, root / "qemu")
    return EmptyRoot(root)


def _can_change_root(folder: Path) -> bool:
    flags = ["-m"] if os.geteuid() == 0 else ["-r", "-m"]
    there = folder / "trial" / "proc"
    there.mkdir(parents=True)
    script = f"mount --bind /proc '{there}'"
    done = subprocess.run(["unshare", *flags, "sh", "-c", script], capture_output=True)
    return done.returncode == 0
