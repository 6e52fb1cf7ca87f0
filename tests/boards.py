"""Devices to reach: an sshd on loopback with keys of its own, and an imitation of adb."""

from __future__ import annotations

import contextlib
import getpass
import io
import os
import shlex
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

from hwnas.devices import adb, adb_phone
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


ADB = r"""#!/bin/sh
phone={phone}
{{ printf '%s\036' "$@"; printf '\035'; }} >> "$phone/calls"
given=
if [ "$1" = -s ]; then given=$2; shift 2; fi
verb=$1
shift
states=$phone/devices
[ ! -e "$phone/unplugged" ] || states=/dev/null
if [ "$verb" = devices ]; then
  echo "List of devices attached"
  cat "$states"
  exit
fi
n=0 state=
while read -r name value; do
  n=$((n + 1))
  if [ -z "$given" ] || [ "$given" = "$name" ]; then state=$value; fi
done < "$states"
fail() {{ echo "adb: $1" >&2; exit 1; }}
[ -n "$given" ] || [ $n -le 1 ] || fail "more than one device/emulator"
[ -n "$state" ] || fail "device '$given' not found"
[ "$state" = device ] || fail "device $state"
# The phone's own programs come first; its /sys and /proc/self/status are its own
PATH=$phone/bin:$PATH
there() {{ case $1 in /*) echo "$1" ;; *) echo "$phone/$1" ;; esac; }}
case $verb in
  shell)
    cd "$phone" || exit
    script=$*
    case $script in
      */sys/*) script=$(printf '%s' "$script" | sed "s#/sys/#$phone/sys/#g") ;;
    esac
    case $script in
      */proc/self/status*)
        script=$(printf '%s' "$script" | sed "s#/proc/self/status#$phone/status#g") ;;
    esac
    sh -c "$script"
    status=$?
    [ ! -e "$phone/unplugged" ] || status=255
    exit $status
    ;;
  push)
    if [ -e "$phone/full" ]; then
      echo "a part" > "$(there "$2")"
      fail "error: failed to copy '$1' to '$2': remote write failed: No space left on device"
    fi
    cp "$1" "$(there "$2")" && echo "1 file pushed"
    ;;
  pull) cp "$(there "$1")" "$2" ;;
  *) fail "unknown command $verb" ;;
esac
"""


@dataclass
class Phone:
    """A folder that the imitation of adb takes for a phone; `settings` are those of adb."""

    folder: Path
    settings: dict[str, object]

    def calls(self, *, with_devices: bool = False) -> list[list[str]]:
        """Arguments of every call of adb, without those of `adb devices`."""
        written = (self.folder / "calls").read_text().split("\035")[:-1]
        calls = [call.split("\036")[:-1] for call in written]
        return [call for call in calls if with_devices or call != ["devices"]]

    def connect(self, **states: str) -> None:
        """What `adb devices` lists, by serial."""
        lines = (f"{serial}\t{state}\n" for serial, state in states.items())
        (self.folder / "devices").write_text("".join(lines))

    def program(self, name: str, script: str) -> Path:
        """A program of the phone, as a shell script."""
        path = self.folder / "bin" / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    def processors(self, capacities: Sequence[int], *, allowed: str = "") -> None:
        """What /sys of the phone says of its processors, and /proc of those a shell may use."""
        if allowed:
            (self.folder / "status").write_text(f"Cpus_allowed_list:\t{allowed}\n")
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
    script.write_text(ADB.format(phone=shlex.quote(str(phone))))
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


QUICK_KIT = """
import sys
sys.path.insert(0, "")
import bench, bench_host, bench_protocol
bench.REPORT_S = bench_host.HOLD_STEP_S = bench_protocol.FLUSH_S = 0.05
sys.exit(bench.main(sys.argv[2:]))
"""
"""Runs the bench.py of this folder with shorter waits; a phone reports once a second."""


def fake_arm64_phone(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *, look_s: float = 0.05
) -> Phone:
    """A phone of arm64 and the runtime for it, with shorter waits than a real one needs."""
    made = fake_phone(folder / "adb", monkeypatch)
    made.program("uname", "echo aarch64")
    imitate_carried(folder / "cache", monkeypatch)
    monkeypatch.setattr(adb_phone, "LOOK_S", look_s)
    monkeypatch.setattr(adb, "HEAT_EVERY_S", 0.05)
    return made


def imitate_carried(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts runtime folders into a cache that start the Python of this machine."""
    monkeypatch.setenv("HWNAS_CACHE", str(folder))
    python = f"""#!/bin/sh
case $1 in bench.py) set -- "${{0%/*}}/quick.py" "$@" ;; esac
exec {sys.executable} "$@"
"""
    for runtime in ("litert", "onnxruntime"):
        archive = carried_runtime("arm64", runtime).path
        archive.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(archive, "w") as tar:
            for name, text in (("python3", python), ("quick.py", QUICK_KIT)):
                header = tarfile.TarInfo(name)
                header.size, header.mode = len(text), 0o755
                tar.addfile(header, io.BytesIO(text.encode()))
