"""Times the models of a plan with the official benchmark_model of TensorFlow Lite or LiteRT.

Each turn is one process of the binary on the phone, in the order of the kit's protocol. A turn has
two samples: the first run of the process, and the mean of the timed runs, because the binary prints
single runs only in whole microseconds. They are appended to the same results file as the kit's.
"""

from __future__ import annotations

import contextlib
import datetime
import itertools
import logging
import platform
import re
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from hwnas.core.errors import UserError
from hwnas.core.leftover import Leftover
from hwnas.core.progress import Progress
from hwnas.core.resources import kit_module
from hwnas.core.store import file_hash, read_json, write_json
from hwnas.core.text import visible
from hwnas.devices.adb_phone import CPUS, HEAT, MOST_LOST, Phone
from hwnas.devices.benchmark_output import BinaryRun, read_output
from hwnas.devices.reach import FULL, Unreached, alone, full_disk
from hwnas.devices.remote_files import put_files
from hwnas.devices.remote_kits import leftovers
from hwnas.interfaces import DeviceSpec

__all__ = ["BenchmarkModel"]

log = logging.getLogger(__name__)

_Found = TypeVar("_Found")

TURNS_PER_CALL = 24
LEAST_S = 0.02  # minimum duration of the timed runs of a turn
COOL_STEP_S = 5.0
MARK = "hwnas-turn"
COMPLETE = "the latencies of all models are complete"
FAILED = "hwnas-exit"
BINARY = "benchmark_model"
PROFILED = ("--enable_op_profiling=true", "--use_profiler=true")
"""Flags that switch on profiling in the binaries of TensorFlow Lite and LiteRT.

Each binary ignores the flag of the other.
"""
FACTS = f"""
echo "cpu $(getprop ro.soc.model 2>/dev/null) $(getprop ro.product.model 2>/dev/null)"
echo "hardware $(sed -n 's/^Hardware[^:]*: *//p' /proc/cpuinfo | head -n 1)"
echo "machine $(uname -m)"
echo "system Android $(getprop ro.build.version.release 2>/dev/null), $(uname -sr)"
echo "n_cpus $(ls -d {CPUS}/cpu[0-9]* | wc -l)"
echo "governor $(cat {CPUS}/cpu0/cpufreq/scaling_governor 2>/dev/null)"
"""


@dataclass(frozen=True)
class BenchmarkModel:
    """A Transport that runs the binary on a phone.

    folder: folder on the phone for the binary and the models.
    binary: path of the binary on this machine; None: the phone has it at `binary_on_phone`.
    wait_s: maximum time in seconds to wait for the phone.
    cool_down_s: maximum total time in seconds to wait while the phone throttles.
    """

    phone: Phone
    device: DeviceSpec
    folder: str
    binary: Path | None
    binary_on_phone: str | None
    wait_s: float
    cool_down_s: float

    def __post_init__(self) -> None:
        device = self.device
        if (device.runtime, device.provider, device.batch) != ("litert", "cpu", 1):
            raise UserError(
                "benchmark_model cannot time this device",
                expected="runtime: litert, provider: cpu, batch: 1",
                found=f"runtime: {device.runtime}, provider: {device.provider}, "
                f"batch: {device.batch}",
                where=f"device {device.name}",
                fix="correct the file of the device, or set `runner: kit` under `transport:`",
            )

    def run_bench(self, plan: Path, results: Path, *, progress: Progress) -> None:
        """See `Transport.run_bench`. Waits for the phone if the cable is pulled, then goes on."""
        protocol = kit_module("bench_protocol")
        content = read_json(plan)
        try:
            with self._alone() as same:
                there = f"{self.folder}/{results.stem}"
                same._again(lambda: same._install(plan, content, there))
                facts = same._again(lambda: same._facts(content))
                with contextlib.closing(protocol.Results(results)) as timed:
                    timed.open_for(content, *facts)
                    same._time(content, there, timed, progress)
                same._profile(content, there, results)
        except protocol.KitError as error:
            raise UserError("cannot store the timings", found=error, where=results) from error

    def try_out(self, plan: Path) -> None:
        """See `TryingTransport.try_out`."""
        content, there = read_json(plan), f"{self.folder}/try"
        with self._alone() as same:
            same._install(plan, content, there)
            same._run([str(item["file"]) for item in content["items"]], there, content)

    def check(self) -> None:
        """See `ReachedTransport.check`."""
        self._check_here()
        self.phone.wait(self.wait_s)

    def _check_here(self) -> None:
        """The part of `check` that needs no phone."""
        if self.binary is not None and not self.binary.is_file():
            raise UserError(
                "the file of benchmark_model is missing",
                expected="the binary for Android on arm64",
                where=self.binary,
                fix="download it (docs/profile-my-board.md), or set `binary_on_phone`",
            )

    def leftovers(self, home: Mapping[str, int]) -> list[Leftover]:
        """See `CleaningTransport.leftovers`; the samples of this transport are never on a phone."""
        self.phone.wait(self.wait_s)
        return leftovers(self.phone, self.folder, home)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[BenchmarkModel]:
        """This transport, bound to the serial number: it never switches to another phone."""
        self._check_here()  # before the phone is waited for
        phone = self.phone.wait(self.wait_s)
        with alone(phone):
            yield replace(self, phone=phone)

    # --- timing -----------------------------------------------------------------------------------

    def _time(self, plan: dict[str, Any], there: str, results: Any, progress: Progress) -> None:
        protocol, cool_s = kit_module("bench_protocol"), self.cool_down_s
        orders = protocol.Orders(plan, results)
        reference = [item["id"] for item in plan["items"]].index(plan["reference"])
        while turns := orders.next(TURNS_PER_CALL):
            cool_s = self._again(partial(self._cool, cool_s, progress))
            files = [plan["items"][i if i >= 0 else reference]["file"] for _, i in turns]
            begin = time.monotonic()
            runs = self._again(partial(self._run, files, there, plan))
            for (number, index), run in zip(turns, runs, strict=True):
                samples = [_nanoseconds(run.first_us), _nanoseconds(run.average_us)]
                results.add(number, index, samples, [])
            results.flush(time.monotonic() - begin)
            progress(results.n_turns, protocol.expected_turns(plan, results), "timing")
        if results.n_turns:
            progress(results.n_turns, results.n_turns, "timing")
            results.close_run(protocol.warnings(results))

    def _again(self, act: Callable[[], _Found]) -> _Found:
        """Returns the result of `act`, which is repeated if the cable is pulled."""
        for n_lost in itertools.count(1):
            try:
                return act()
            except UserError as error:
                is_lost = isinstance(error, Unreached) or not self.phone.is_there()
                if self.wait_s == 0 or n_lost == MOST_LOST or not is_lost:
                    raise
                log.warning("lost the connection to %s; the samples are kept", self.phone.where)
                self.phone.wait(self.wait_s)
        raise AssertionError

    def _run(
        self, files: Sequence[str], there: str, plan: dict[str, Any], *options: str
    ) -> list[BinaryRun]:
        """Runs the binary on models, one after another, in one shell.

        Raises:
            UserError: the binary fails on a model.
        """
        is_forced = bool(plan.get("force_threads"))
        mask = self.phone.fast_mask(self.device.threads, is_forced=is_forced)
        command = [*(["taskset", mask] if mask else []), self.binary_on_phone or f"./{BINARY}"]
        command += [f"--num_threads={plan['threads']}", f"--num_runs={plan['hot_samples']}"]
        command += [f"--min_secs={LEAST_S}", f"--max_secs={max(LEAST_S, plan['turn_budget_s'])}"]
        command += [f"--warmup_runs={plan['warmup_runs']}", "--warmup_min_secs=0", *options]
        words = " ".join(shlex.quote(word) for word in command)
        lines = [f"cd {shlex.quote(there)} || exit"]
        for number, file in enumerate(files):
            run = f"{words} --graph={shlex.quote(file)} 2>&1 || echo {FAILED} $?"
            lines.append(f"echo; echo {MARK} {number}; {run}")
        said = self.phone.run("\n".join(lines))
        parts = re.split(rf"^{MARK} [0-9]+\r?$", said, flags=re.MULTILINE)[1:]
        if len(parts) != len(files):
            raise self._failure("the output is incomplete", said[-300:], there)
        return [self._read(part, file, there) for part, file in zip(parts, files, strict=True)]

    def _read(self, text: str, file: str, there: str) -> BinaryRun:
        if FULL in text:
            raise full_disk(text.strip()[-300:], self.phone.where)
        if FAILED in text:
            raise self._failure(f"failed on {file}", text.strip()[-1000:], there)
        try:
            return read_output(text)
        except ValueError as error:
            raise self._failure(f"the output for {file} is malformed", error, there) from error

    def _failure(self, what: str, found: object, there: str) -> UserError:
        return UserError(
            f"benchmark_model: {what}",
            expected="benchmark_model of TensorFlow Lite or LiteRT for Android on arm64"
            " (android_aarch64), and its usual output",
            found=found,
            where=f"{self.phone.where}:{there}",
            fix="check that the binary is for android_aarch64 (docs/profile-my-board.md), and run"
            " it on the phone with `adb shell` to see its full output",
        )

    def _cool(self, left_s: float, progress: Progress) -> float:
        """Waits while the phone throttles; at most `left_s`. Returns the seconds that are left."""
        while left_s > 0 and self.phone.run(HEAT).strip() not in ("", "0"):
            progress(0, 0, "waiting for the device to cool down")
            time.sleep(COOL_STEP_S)
            left_s -= COOL_STEP_S
        return left_s

    # --- the phone --------------------------------------------------------------------------------

    def _install(self, plan: Path, content: dict[str, Any], there: str) -> None:
        names = [str(item["file"]) for item in content["items"]]
        members = [(plan.parent / name, name) for name in names]
        if self.binary is not None:
            self._check_here()
            members.append((self.binary, BINARY))
        put_files(self.phone, there, members)
        if self.binary is not None:
            self.phone.run(f"chmod 755 {shlex.quote(f'{there}/{BINARY}')}")

    def _facts(self, plan: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """The facts and the host in the header of the results."""
        if self.binary is not None:
            digest = file_hash(self.binary)
        else:
            there = str(self.binary_on_phone)
            digest = self.phone.run(f"sha256sum {shlex.quote(there)}")
            if re.match("[0-9a-f]{64}", digest) is None:
                raise self._failure("the phone printed no checksum", digest[:200], there)
        rows = (line.partition(" ") for line in self.phone.run(FACTS).splitlines())
        known = {key: visible(" ".join(value.split()))[:80] for key, _, value in rows}
        found = re.fullmatch("[1-9][0-9]{0,3}", known.get("n_cpus", ""))
        mask = self.phone.fast_mask(self.device.threads)
        host = {
            "cpu": known.get("cpu") or known.get("hardware") or "unknown",
            "accelerator": None,
            "n_cpus": int(found[0]) if found else 1,
            "affinity": [cpu for cpu in range(64) if int(mask or "0", 16) >> cpu & 1],
            "governor": known.get("governor") or None,
            "load_average": 0.0,
            "machine": known.get("machine", ""),
            "system": known.get("system", ""),
            "python": f"{platform.python_version()} (not on the phone)",
            "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        }
        facts = {key: plan[key] for key in ("runtime", "provider", "precision", "threads", "batch")}
        facts["runtime_version"] = f"{BINARY}, sha256 {digest[:16]}"
        facts["interrupted_runs"] = "dropped"
        return facts, host

    def _profile(self, plan: dict[str, Any], there: str, results: Path) -> None:
        """Writes the operator times of the plan's reference, a whole network, beside the results.

        The timings are complete without it, so a binary that cannot profile is only a warning.
        """
        path = results.with_name(f"{results.stem}-operators.json")
        if path.is_file():
            return
        item = next(item for item in plan["items"] if item["id"] == plan["reference"])
        lacking = f"{item['id']}: the times of its single operators were not measured"
        try:
            (run,) = self._run([item["file"]], there, plan, *PROFILED)
        except UserError as error:
            log.warning("%s; %s: %s", lacking, COMPLETE, error)
            return
        if not run.operators:
            log.warning("%s, because %s does not print them; %s", lacking, BINARY, COMPLETE)
            return
        if slow := sorted({one.kind for one in run.operators if not one.is_delegated}):
            log.warning("%s: XNNPACK does not run %s", item["id"], ", ".join(slow))
        operators = [asdict(operator) for operator in run.operators]
        write_json(path, {"schema_version": 1, "model": item["id"], "operators": operators})


def _nanoseconds(microseconds: float) -> int:
    return max(1, round(microseconds * 1000))
