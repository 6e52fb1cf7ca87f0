"""Runs the kit on a remote device: installs it, runs it, and copies the samples back.

A device is a `Reach`, such as ssh or adb. It has one folder per plan, with the models, the kit and
the results. The files stay on the device, so only missing files are copied. An interrupted run
leaves its samples on the device. They are copied immediately, or by the next run.
"""

from __future__ import annotations

import contextlib
import logging
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hwnas.core.errors import UserError
from hwnas.core.leftover import Leftover
from hwnas.core.progress import Progress, silent
from hwnas.core.store import read_json
from hwnas.devices.carried import CarriedRuntime
from hwnas.devices.kit import KitFailed, kit_files, run_kit
from hwnas.devices.reach import FULL, LOST, CommandFailed, Reach, call, full_disk
from hwnas.devices.remote_files import folder_of, put_files, put_runtime
from hwnas.devices.remote_kits import leftovers
from hwnas.devices.remote_samples import RESULTS, Unlike, fetch_samples, give_samples
from hwnas.devices.runtimes import install_line
from hwnas.interfaces import DeviceSpec

__all__ = ["ConnectionLost", "RemoteKit"]

log = logging.getLogger(__name__)

# Stops a kit that an earlier interrupted run left behind; $p is checked to run bench.py.
STOP = """
if p=$(cat pid 2>/dev/null); then
  n=0
  while grep -q bench.py "/proc/$p/cmdline" 2>/dev/null && [ $n -lt 10 ]; do
    kill -INT "$p"; sleep 1; n=$((n + 1))
  done
  rm -f pid
fi
"""


class ConnectionLost(UserError):
    """The device stopped answering while the kit was running."""


@dataclass(frozen=True)
class RemoteKit:
    """A Transport over a Reach.

    folder: folder on the device, absolute or relative to the start folder of `sh`.
    python: the interpreter on the device that has the runtime; not used with `carried`.
    before: shell commands to run before the interpreter, or "".
    carried: the folder with Python and the runtime, which is copied once.
    prefix: a command that starts the interpreter, such as `taskset 80`, or "".
    options: further options of bench.py when it times.
    beside: shell commands that run while bench.py times; `$p` is its process.
    """

    reach: Reach
    device: DeviceSpec
    folder: str
    python: str
    before: str
    carried: CarriedRuntime | None = None
    prefix: str = ""
    options: str = ""
    beside: str = ""

    def run_bench(self, plan: Path, results: Path, *, progress: Progress) -> None:
        """See `Transport.run_bench`."""
        there = f"{self.folder}/{results.stem}"
        self._install(plan, there)
        give_samples(self.reach, there, plan, results)
        try:
            arguments = f"plan.json --out {RESULTS} {self.options}".rstrip()
            self._run_kit(there, arguments, progress, beside=self.beside)
        except UserError as error:
            with contextlib.suppress(UserError):
                fetch_samples(self.reach, there, results)
            if isinstance(error, KitFailed) and (error.status == LOST or not self._answers()):
                raise ConnectionLost(
                    "lost the connection to the device",
                    found=error.found,
                    where=error.where,
                    fix="the samples are kept; run the same command again to resume",
                ) from error
            self._distrust(error, there)
            raise
        except BaseException:  # Ctrl-C, or the exception that the command line makes of a signal
            log.info("stopping %s and copying its samples back", self.reach.where)
            with contextlib.suppress(UserError):
                self._run(f"cd {shlex.quote(there)}\n{STOP}")
                fetch_samples(self.reach, there, results)
            raise
        try:
            fetch_samples(self.reach, there, results)
        except Unlike:
            raise
        except UserError as error:
            raise ConnectionLost(
                "lost the connection to the device before its samples were copied",
                found=error.found,
                where=error.where,
                fix="the samples are kept on the device; run the same command again",
            ) from error

    def try_out(self, plan: Path) -> None:
        """See `TryingTransport.try_out`."""
        there = f"{self.folder}/try"
        self._install(plan, there)
        try:
            self._run_kit(there, "plan.json --try", silent)
        except UserError as error:
            self._distrust(error, there)
            raise

    def _run_kit(self, there: str, arguments: str, progress: Progress, *, beside: str = "") -> None:
        """Runs the device's bench.py to its end; explains missing requirements."""
        prepare = f"{self.before} && " if self.before else ""
        begin = f"cd {shlex.quote(there)} && echo $$ > pid && {prepare}"
        if beside:
            begin += f"p=$$ && {{ ( {beside} ) > /dev/null 2>&1 < /dev/null & }} && "
        script = (
            f"{begin}exec env OMP_NUM_THREADS={self.device.threads} PYTHONUNBUFFERED=1 "
            f"{self.prefix} {self._interpreter} bench.py {arguments}"
        )
        where = f"{self.reach.where}:{there}"
        try:
            run_kit(self.reach.command(script), environment={}, progress=progress, where=where)
        except KitFailed as error:
            if FULL in str(error.found):
                raise full_disk(error.found, where) from error
            install = install_line(self.device.runtime)
            if install in str(error.found):
                raise UserError(
                    f"the device lacks packages for {self.device.runtime}",
                    found=error.found,
                    where=where,
                    fix=f"on the device: {prepare}{self.python}{install.removeprefix('python')}",
                ) from error
            raise

    def check(self) -> None:
        """See `ReachedTransport.check`."""
        self.check_here()
        self._run("echo here")

    def check_here(self) -> None:
        """The part of `check` that needs no connection.

        Raises:
            UserError: the runtime folder is not on this machine.
        """
        if self.carried is not None:
            self.carried.archive  # noqa: B018 - raises if it is missing

    def fetch(self) -> None:
        """See `FetchingTransport.fetch`."""
        if self.carried is None:
            raise UserError(
                "this device needs no download",
                expected="a device with `with_runtime: arm64` under `transport:`",
                found=f"the device {self.device.name} without this setting",
                where="--fetch",
                fix="leave --fetch out",
            )
        self.carried.fetch()

    def leftovers(self, home: Mapping[str, int]) -> list[Leftover]:
        """See `CleaningTransport.leftovers`."""
        return leftovers(self.reach, self.folder, home)

    def _install(self, plan: Path, there: str) -> None:
        """Installs runtime, models and kit on the device, and stops earlier kits there."""
        if self.carried is not None:
            put_runtime(self.reach, self.folder, self.carried)
        names = [plan.name, *(str(item["file"]) for item in read_json(plan)["items"])]
        members = [(plan.parent / name, name) for name in names]
        members += [(path, path.name) for path in kit_files()]
        prepare = f"{self.before} && " if self.before else ""
        extract = f"{prepare}{self._interpreter} -m tarfile -e kit.tar ."
        try:
            put_files(self.reach, there, members, first=STOP, extract=extract)
        except UserError as error:
            self._distrust(error, there)
            raise

    def _distrust(self, error: UserError, there: str) -> None:
        """After a failure of the kit, the next run copies its files again: they may be changed."""
        if isinstance(error, (KitFailed, CommandFailed)):
            runtime = "" if self.carried is None else f"../{folder_of(self.carried)}/python3"
            with contextlib.suppress(UserError):
                self._run(f"cd {shlex.quote(there)} && rm -f installed-* {runtime}")
                error.add_way_out("repeat the command, which copies models and kit again")

    @property
    def _interpreter(self) -> str:
        """The interpreter, seen from the folder of a plan."""
        return self.python if self.carried is None else f"sh ../{folder_of(self.carried)}/python3"

    def _run(self, script: str) -> str:
        return call(self.reach.command(script), where=self.reach.where)

    def _answers(self) -> bool:
        try:
            return self._run("echo here").strip() == "here"
        except UserError:
            return False
