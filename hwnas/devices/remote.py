"""Runs the kit on a remote device: installs it, runs it, and copies the samples back.

A device is a `Reach`, such as ssh or adb. It has one folder per plan, with the models, the kit and
the results. The files stay on the device, so only missing files are copied. An interrupted run
leaves its samples on the device. They are copied immediately, or by the next run.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import shlex
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from hwnas.core.errors import UserError
from hwnas.core.leftover import Leftover
from hwnas.core.progress import Progress, silent
from hwnas.core.store import read_json
from hwnas.devices.kit import KitFailed, kit_files, run_kit
from hwnas.devices.reach import LOST, Reach, call
from hwnas.devices.remote_kits import leftovers
from hwnas.devices.runtimes import install_line
from hwnas.interfaces import DeviceSpec

__all__ = ["RemoteKit"]

log = logging.getLogger(__name__)

RESULTS = "results.jsonl"
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


@dataclass(frozen=True)
class RemoteKit:
    """A Transport over a Reach.

    folder: folder on the device, absolute or relative to the start folder of `sh`.
    python: the interpreter on the device that has the runtime.
    before: shell commands to run before it, or "".
    """

    reach: Reach
    device: DeviceSpec
    folder: str
    python: str
    before: str

    def run_bench(self, plan: Path, results: Path, *, progress: Progress) -> None:
        """See `Transport.run_bench`."""
        there = f"{self.folder}/{results.stem}"
        n_there = self._install(plan, there)
        if results.is_file() and results.stat().st_size > n_there:  # the device lost its results
            self.reach.push(results, f"{there}/{RESULTS}")
        try:
            self._run_kit(there, f"plan.json --out {RESULTS}", progress)
        except UserError as error:
            with contextlib.suppress(UserError):
                self._fetch(results, there)
            if isinstance(error, KitFailed) and (error.status == LOST or not self._answers()):
                raise UserError(
                    "lost the connection to the device",
                    found=error.found,
                    where=error.where,
                    fix="the samples are kept; run the same command again to resume",
                ) from error
            raise
        except BaseException:  # Ctrl-C, or the exception that the command line makes of a signal
            log.info("stopping %s and copying its samples back", self.reach.where)
            with contextlib.suppress(UserError):
                self._run(f"cd {shlex.quote(there)}\n{STOP}")
                self._fetch(results, there)
            raise
        self._fetch(results, there)

    def try_out(self, plan: Path) -> None:
        """See `TryingTransport.try_out`."""
        there = f"{self.folder}/try"
        self._install(plan, there)
        self._run_kit(there, "plan.json --try", silent)

    def _run_kit(self, there: str, arguments: str, progress: Progress) -> None:
        """Runs the device's bench.py to its end; explains missing requirements."""
        prepare = f"{self.before} && " if self.before else ""
        script = (
            f"cd {shlex.quote(there)} && echo $$ > pid && {prepare}"
            f"exec env OMP_NUM_THREADS={self.device.threads} PYTHONUNBUFFERED=1 "
            f"{self.python} bench.py {arguments}"
        )
        where = f"{self.reach.where}:{there}"
        try:
            run_kit(self.reach.command(script), environment={}, progress=progress, where=where)
        except KitFailed as error:
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
        self._run("echo here")

    def leftovers(self, home: Mapping[str, int]) -> list[Leftover]:
        """See `CleaningTransport.leftovers`."""
        return leftovers(self.reach, self.folder, home)

    def _install(self, plan: Path, there: str) -> int:
        """Installs models and kit on the device, and stops earlier kits there.

        Returns:
            Number of bytes of samples on the device.
        """
        names = [plan.name, *(str(item["file"]) for item in read_json(plan)["items"])]
        members = [(plan.parent / name, name) for name in names]
        members += [(path, path.name) for path in kit_files()]
        digest = hashlib.sha256()
        for path, name in members:
            digest.update(name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
        mark = f"installed-{digest.hexdigest()[:16]}"
        quoted = shlex.quote(there)
        look = f"cat {mark} 2>/dev/null || echo no; wc -c 2>/dev/null < {RESULTS} || echo 0"
        found = self._run(f"mkdir -p {quoted} && cd {quoted} || exit\n{STOP}\n{look}").split()
        if len(found) != 2 or not re.fullmatch("[0-9]{1,18}", found[1]):
            raise UserError(
                "unexpected output from the remote shell",
                expected="two words: whether the kit is there, and the size of its results",
                found=" ".join(found)[:200],
                where=self.reach.where,
                fix="its shell must print nothing when it starts",
            )
        if found[0] != "yes":
            with TemporaryDirectory() as folder:
                archive = Path(folder, "kit.tar")
                with tarfile.open(archive, "w") as tar:
                    for path, name in members:
                        tar.add(path, name)
                self.reach.push(archive, f"{there}/kit.tar")
            prepare = f"{self.before} && " if self.before else ""
            extract = f"{self.python} -m tarfile -e kit.tar . && rm kit.tar && echo yes > {mark}"
            self._run(f"cd {quoted} && {prepare}{extract}")
        return int(found[1])

    def _fetch(self, results: Path, there: str) -> None:
        """Replaces the local results by those of the device, which are append-only."""
        arrived = results.with_name(f".{results.name}.arriving")
        try:
            self.reach.pull(f"{there}/{RESULTS}", arrived)
            if not results.is_file() or arrived.stat().st_size > results.stat().st_size:
                os.replace(arrived, results)
        finally:
            arrived.unlink(missing_ok=True)

    def _run(self, script: str) -> str:
        return call(self.reach.command(script), where=self.reach.where)

    def _answers(self) -> bool:
        try:
            return self._run("echo here").strip() == "here"
        except UserError:
            return False
