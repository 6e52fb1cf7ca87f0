"""Devices to reach: an sshd on loopback with keys of its own, and an imitation of adb."""

from __future__ import annotations

import contextlib
import getpass
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from hwnas.devices.carried import carried_runtime

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


@dataclass
class Sshd:
    """A running server; `settings` are those of the ssh transport."""

    process: subprocess.Popen[bytes]
    settings: dict[str, object]
    log: Path

    def sever(self) -> None:
        """Cut every open connection, as a cable would."""
        for child in children(self.process.pid):
            os.kill(child, signal.SIGKILL)


def children(pid: int) -> list[int]:
    """Processes whose parent is `pid`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            if int(fields[1]) == pid:
                found.append(int(path.parent.name))
    return found


@contextlib.contextmanager
def loopback_sshd(folder: Path) -> Iterator[Sshd]:
    """A server on a free port that lets this user in by a key made for it; else the test skips."""
    if SSHD is None or shutil.which("ssh") is None:
        pytest.skip("no sshd or ssh here: apt-get install openssh-server")
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    for name in ("host_key", "user_key"):
        make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(make, check=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shutil.copy(folder / "user_key.pub", folder / "authorized_keys")
    host_key = (folder / "host_key.pub").read_text()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key}")
    config = {
        "ListenAddress": "127.0.0.1",
        "Port": port,
        "HostKey": folder / "host_key",
        "AuthorizedKeysFile": folder / "authorized_keys",
        "PidFile": "none",
        "StrictModes": "no",
        "UsePAM": "no",
        "PasswordAuthentication": "no",
        "PermitRootLogin": "prohibit-password",
    }
    (folder / "sshd_config").write_text("".join(f"{k} {v}\n" for k, v in config.items()))
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where sshd drops its privileges
    log = folder / "sshd.log"
    with open(log, "wb") as stream:
        command = [SSHD, "-D", "-e", "-f", str(folder / "sshd_config")]
        process = subprocess.Popen(command, stderr=stream, stdin=subprocess.DEVNULL)
    settings: dict[str, object] = {
        "name": "ssh",
        "host": "127.0.0.1",
        "port": port,
        "user": getpass.getuser(),
        "identity": str(folder / "user_key"),
        "known_hosts": str(folder / "known_hosts"),
        "folder": str(folder / "board"),
        "python": sys.executable,
    }
    server = Sshd(process, settings, log)
    try:
        _await_port(port, server)
        yield server
    finally:
        server.sever()
        process.terminate()
        process.wait(10)


def _await_port(port: int, server: Sshd) -> None:
    for _ in range(100):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        if server.process.poll() is not None:
            break
        time.sleep(0.1)
    pytest.fail(f"sshd does not start: {server.log.read_text()}")


ADB = """#!{python}
import json, os, pathlib, shutil, subprocess, sys
phone = pathlib.Path({phone!r})
words = sys.argv[1:]
with open(phone / "calls.jsonl", "a") as stream:
    stream.write(json.dumps(words) + "\\n")
given = None
if words[:1] == ["-s"]:
    given, words = words[1], words[2:]
verb, *rest = words
states = json.loads((phone / "devices.json").read_text())
if (phone / "unplugged").exists():
    states = {{}}
if verb == "devices":
    print("List of devices attached")
    print("".join(f"{{name}}\\t{{state}}\\n" for name, state in states.items()))
    sys.exit()
if given is None and len(states) > 1:
    sys.exit("adb: more than one device/emulator")
if given is not None and given not in states:
    sys.exit(f"adb: device '{{given}}' not found")
state = states.get(given) if given else next(iter(states.values()), None)
if state is None:
    sys.exit("adb: no devices/emulators found")
if state != "device":
    sys.exit(f"adb: device {{state}}")
# The phone's own programs come first; its /sys is a folder
os.environ["PATH"] = f"{{phone}}/bin:{{os.environ['PATH']}}"
if verb == "shell":
    script = " ".join(rest).replace("/sys/", f"{{phone}}/sys/")
    status = subprocess.run(["sh", "-c", script], cwd=phone).returncode
    sys.exit(255 if (phone / "unplugged").exists() else status)
elif verb == "push":
    if (phone / "full").exists():
        (phone / rest[1]).write_bytes(b"a part")
        sys.exit(f"adb: error: failed to copy '{{rest[0]}}' to '{{rest[1]}}': remote write failed:"
                 " No space left on device")
    shutil.copyfile(rest[0], phone / rest[1])
    print("1 file pushed")
elif verb == "pull":
    shutil.copyfile(phone / rest[0], rest[1])
else:
    sys.exit(f"adb: unknown command {{verb}}")
"""


@dataclass
class Phone:
    """A folder that the imitation of adb takes for a phone; `settings` are those of adb."""

    folder: Path
    settings: dict[str, object]

    def calls(self, *, with_devices: bool = False) -> list[list[str]]:
        """Arguments of every call of adb, without those of `adb devices`."""
        lines = (self.folder / "calls.jsonl").read_text().splitlines()
        calls: list[list[str]] = [json.loads(line) for line in lines]
        return [call for call in calls if with_devices or call != ["devices"]]

    def connect(self, **states: str) -> None:
        """What `adb devices` lists, by serial."""
        (self.folder / "devices.json").write_text(json.dumps(states))

    def program(self, name: str, script: str) -> Path:
        """A program of the phone, as a shell script."""
        path = self.folder / "bin" / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    def processors(self, capacities: Sequence[int]) -> None:
        """What /sys of the phone says of its processors."""
        for number, capacity in enumerate(capacities):
            place = self.folder / "sys" / "devices" / "system" / "cpu" / f"cpu{number}"
            place.mkdir(parents=True)
            (place / "cpu_capacity").write_text(f"{capacity}\n")


def fake_phone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Phone:
    """An `adb` on the PATH that records its calls and executes them in `folder`."""
    phone = folder / "phone"
    (phone / "bin").mkdir(parents=True)
    script = folder / "bin" / "adb"
    script.parent.mkdir()
    script.write_text(ADB.format(python=sys.executable, phone=str(phone)))
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    settings: dict[str, object] = {
        "name": "adb",
        "serial": "FAKE123",
        "folder": "hwnas-kit",
        "python": sys.executable,
        "wait_s": 0,
    }
    made = Phone(phone, settings)
    made.connect(FAKE123="device")
    return made


def imitate_carried(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts runtime folders into a cache that start the Python of this machine."""
    monkeypatch.setenv("HWNAS_CACHE", str(folder))
    script = f'#!/bin/sh\nexec {sys.executable} "$@"\n'.encode()
    for runtime in ("litert", "onnxruntime"):
        archive = carried_runtime("arm64", runtime).path
        archive.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(archive, "w") as tar:
            header = tarfile.TarInfo("python3")
            header.size, header.mode = len(script), 0o755
            tar.addfile(header, io.BytesIO(script))
