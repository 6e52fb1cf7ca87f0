"""An empty root in which programs for arm64 run: qemu's user mode, /proc, and what a test puts in.

Correctness only: timings under an emulator mean nothing. /sys stays out, because runtimes read the
processors of the host there and crash.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from hwnas.core.errors import UserError
from hwnas.devices.carried import CarriedRuntime, carried_runtime

__all__ = ["EmptyRoot", "carried_or_skip", "empty_root_or_skip"]

QEMU = shutil.which("qemu-aarch64-static")
IN_ROOT = 'mount --bind /proc "$1/proc" && exec chroot "$@"'


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
