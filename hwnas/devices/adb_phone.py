"""Connects to a phone over adb, transfers files, and finds its fast processors and its heat."""

from __future__ import annotations

import logging
import os
import re
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hwnas.core.errors import UserError
from hwnas.devices.reach import call

__all__ = ["HEAT", "MOST_LOST", "Phone", "fast_processors"]

log = logging.getLogger(__name__)

LOOK_S = 1.0
MOST_LOST = 3
"""Timing stops after this number of lost connections in a row without a result.

A model can make the phone restart every time.
"""
LISTED = "List of devices attached"  # above the phones; a daemon that starts talks before it
MOST_CPUS = 1024
CPUS = "/sys/devices/system/cpu"
STATUS = "/proc/self/status"
LIST_CPUS = f"""
sed -n 's/^Cpus_allowed_list:/allowed/p' {STATUS} 2>/dev/null
for c in {CPUS}/cpu[0-9]*; do
  [ "$(cat "$c/online" 2>/dev/null || echo 1)" = 0 ] && continue
  s=$(cat "$c/cpu_capacity" 2>/dev/null || cat "$c/cpufreq/cpuinfo_max_freq" 2>/dev/null || echo 0)
  echo "${{c##*/cpu}} $s"
done
command -v taskset > /dev/null 2>&1 && echo taskset
"""
HEAT = (
    "dumpsys thermalservice 2>/dev/null"
    " | sed -n 's/.*Thermal Status: *\\([0-9][0-9]*\\).*/\\1/p' | head -n 1"
)
"""Shell command that prints Android's throttling status: 0 (none), 1 (light), ... 6.

It prints nothing before Android 10.
"""

FIXES = {
    "unauthorized": "unlock the phone and allow USB debugging there",
    "offline": "pull the cable and plug it in again, or run `adb reconnect`",
    "no permissions": "give your user access to USB devices (`apt-get install adb`, which has the"
    " udev rules, then plug the phone in again)",
    "": "connect the phone, and switch on USB debugging in its developer options; `adb devices`"
    " must list it",
}


@dataclass(frozen=True)
class Phone:
    """A `Reach` over adb.

    serial: serial number of the phone; None: the only connected phone.
    as_root: runs commands with `su -c`.
    """

    serial: str | None
    as_root: bool

    @property
    def where(self) -> str:
        """See `Reach.where`."""
        return f"adb {self.serial or 'device'}"

    @property
    def identity(self) -> str:
        """See `Reach.identity`: the serial number, even if `serial` is None."""
        return f"adb {self._found()[0]}"

    def command(self, script: str) -> list[str]:
        """See `Reach.command`."""
        if self.as_root:
            script = f"su -c {shlex.quote(script)}"
        return self._adb("shell", script)

    def push(self, local: Path, remote: str) -> None:
        """See `Reach.push`."""
        call(self._adb("push", str(local), remote), where=self.where)

    def pull(self, remote: str, local: Path) -> None:
        """See `Reach.pull`."""
        call(self._adb("pull", remote, str(local)), where=self.where)

    def run(self, script: str) -> str:
        """Runs a shell script on the phone, and returns its output."""
        return call(self.command(script), where=self.where)

    def wait(self, longest_s: float) -> Phone:
        """Waits until the phone answers. Returns the phone, bound to its serial number.

        Raises:
            UserError: the phone does not answer, or several phones are connected and none is
                chosen.
        """
        deadline, has_said = time.monotonic() + longest_s, False
        while (found := self._found())[1] != "device":
            state = found[1]
            if time.monotonic() >= deadline:
                raise UserError(
                    "cannot reach the device",
                    expected="a phone in the list of `adb devices`, with the state `device`",
                    found=f"{self.serial or 'a phone'}: {state or 'not in the list'}",
                    where=self.where,
                    fix=self._fix(state),
                )
            if not has_said:
                has_said = True
                log.warning(
                    "waiting up to %.0f s for %s: %s", longest_s, self.where, self._fix(state)
                )
            time.sleep(LOOK_S)
        return replace(self, serial=found[0])

    def _fix(self, state: str) -> str:
        """What to do about a phone in this state."""
        others = "" if state else _listed(self._connected())
        return f"check `serial:`; connected: {others}" if others else FIXES.get(state, FIXES[""])

    def is_there(self) -> bool:
        """Whether the phone answers now."""
        try:
            return self._found()[1] == "device"
        except UserError:
            return False

    def fast_mask(self, n_threads: int, *, is_forced: bool = True) -> str:
        """Mask of the fast processors for `taskset`, among those that a shell of the phone may use.

        It is empty if all processors are equally fast, or if the phone has no `taskset`.

        Raises:
            UserError: more threads than processors, unless `is_forced`.
        """
        *lines, last = self.run(LIST_CPUS).splitlines() or [""]
        speeds = _speeds(lines if last.strip() == "taskset" else [*lines, last])
        if 0 < len(speeds) < n_threads and not is_forced:
            raise UserError(
                "more threads than processors",
                expected=f"at most {len(speeds)} threads on this phone",
                found=f"{n_threads} threads",
                where=self.where,
                fix=f"set `threads: {len(speeds)}` in the file of the device, or force it with"
                " `--profile force_threads=true`",
            )
        chosen = fast_processors(speeds, n_threads)
        if len(chosen) == len(speeds):
            return ""
        if last.strip() != "taskset":
            log.warning("%s has no taskset, so timings may run on slow cores", self.where)
            return ""
        return f"{sum(1 << cpu for cpu in chosen):x}"

    def _connected(self) -> dict[str, str]:
        """State of every phone by its serial number."""
        listed = call(["adb", "devices"], where=self.where).partition(LISTED)[2]
        rows = (line.partition("\t") for line in listed.splitlines())
        return {name: state.strip() for name, _, state in rows if name.strip() and state.strip()}

    def _found(self) -> tuple[str, str]:
        """Serial number and state of the phone in `adb devices`; an empty state: it is not there.

        Raises:
            UserError: there are several, and none is chosen.
        """
        states = self._connected()
        chosen = self.serial or os.environ.get("ANDROID_SERIAL") or None  # as adb itself
        if chosen is None and len(states) > 1:
            raise UserError(
                "several phones or emulators are connected",
                expected="one, or `serial:` under `transport:` in the file of the device",
                found=_listed(states),
                where=self.where,
                fix=f"set `serial: {next(iter(states))}`, or another of these serial numbers",
            )
        name = chosen or next(iter(states), "")
        state = states.get(name, "")
        return name, next((known for known in FIXES if known and state.startswith(known)), state)

    def _adb(self, *words: str) -> list[str]:
        serial = [] if self.serial is None else ["-s", self.serial]
        return ["adb", *serial, *words]


def _listed(states: Mapping[str, str]) -> str:
    return ", ".join(f"{name} ({state})" for name, state in states.items())


def fast_processors(speeds: Sequence[tuple[int, int]], n_threads: int) -> list[int]:
    """The `n_threads` fastest processors, and all others that are as fast as the slowest of these.

    speeds: (processor, capacity or frequency) of every processor; 0: unknown.
    """
    ranked = sorted(speeds, key=lambda pair: -pair[1])
    slowest = ranked[min(n_threads, len(ranked)) - 1][1] if ranked else 0
    return sorted(cpu for cpu, speed in ranked if speed >= slowest)


def _speeds(lines: Sequence[str]) -> list[tuple[int, int]]:
    """Processors and speeds in lines of `LIST_CPUS`; processors that are not allowed are left out.

    If the phone does not say which processors are allowed, all are.
    """
    found = (re.fullmatch(r"([0-9]{1,4}) ([0-9]{1,12})", line.strip()) for line in lines)
    pairs = {int(match[1]): int(match[2]) for match in found if match}
    ranges = re.findall(r"^allowed\s+([0-9,-]{1,999})\s*$", "\n".join(lines), re.MULTILINE)
    bounds = re.findall(r"([0-9]{1,4})(?:-([0-9]{1,4}))?", ranges[0]) if ranges else []
    allowed = {cpu for low, high in bounds for cpu in range(int(low), int(high or low) + 1)}
    return [
        (cpu, speed)
        for cpu, speed in pairs.items()
        if cpu < MOST_CPUS and (cpu in allowed or not allowed)
    ]
