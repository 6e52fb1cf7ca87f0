"""The host of the kit: its clock, its facts, and the processors that the kit uses."""

import contextlib
import datetime
import os
import platform
import resource
import time
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
CPUS = Path("/sys/devices/system/cpu")
HOLD_STEP_S = 1.0
LOOK_S = 0.1  # observation time for the load of processors


class ProcessClock:
    """Clock in nanoseconds, and the number of times that the kernel preempted this process.

    `work`: processor time of the calling thread, if this thread does the work.
    """

    now = staticmethod(time.perf_counter_ns)

    def __init__(self, works_alone):
        can_tell = works_alone and hasattr(time, "thread_time_ns")
        self.work = time.thread_time_ns if can_tell else lambda: None

    @staticmethod
    def switches():
        """Involuntary context switches so far."""
        return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


class Hold:
    """Pauses while a file exists, which something beside the kit makes when the device is too hot.

    longest_s: maximum seconds of all pauses together; after that, calls no longer pause.
    """

    def __init__(self, path, longest_s):
        self._path, self._left_s = Path(path), longest_s

    def __call__(self, report):
        """Waits until the file is gone; calls `report` every second. Returns whether it waited."""
        has_waited = False
        while self._left_s > 0 and self._path.exists():
            report()
            time.sleep(min(HOLD_STEP_S, self._left_s))
            self._left_s -= HOLD_STEP_S
            has_waited = True
        return has_waited


def never(report):
    """A `Hold` that never pauses."""
    return False


def pin(n_threads):
    """Pins this process to as many processors as it has threads, if the system supports it.

    It selects the fastest processors (those of phones differ) on separate cores, and among these
    the least busy ones.
    """
    if not hasattr(os, "sched_setaffinity"):
        return
    allowed = os.sched_getaffinity(0)
    if len(allowed) <= n_threads:
        return
    busy = _busy_shares()
    ranked = sorted(
        allowed, key=lambda cpu: (-_speed(cpu), _place_in_core(cpu), busy.get(cpu, 0), -cpu)
    )
    with contextlib.suppress(OSError):
        os.sched_setaffinity(0, ranked[:n_threads])


def too_many(n_threads):
    """A warning if there are fewer processors than threads; else empty."""
    n_cpus, usable = os.cpu_count() or 1, usable_processors()
    if n_threads <= usable:
        return ""
    return (
        f"{n_threads} threads, but this process may use {usable} of {n_cpus} processors: "
        "threads will wait for each other"
    )


def usable_processors():
    """Number of processors that this process may use: by affinity, and by its cgroup quota."""
    has_affinity = hasattr(os, "sched_getaffinity")
    allowed = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    both = read_text(CGROUP / "cpu.max").split()  # cgroup version 2; version 1 has two files
    parts = ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")
    quota, period = (both + ["", ""])[:2] if both else [read_text(CGROUP / p) for p in parts]
    quota, period = quota.strip(), period.strip()
    if quota.isdigit() and period.isdigit() and int(period) > 0:
        return min(allowed, max(1, -(-int(quota) // int(period))))
    return allowed


def _speed(cpu):
    """Relative speed of a processor, from the kernel; 0 if unknown."""
    for name in ("cpu_capacity", "cpufreq/cpuinfo_max_freq"):
        text = read_text(CPUS / f"cpu{cpu}" / name).strip()
        if text.isdigit():
            return int(text)
    return 0


def _place_in_core(cpu):
    """Index of a hardware thread within its core: 0 for the first one, 1 for its sibling."""
    siblings = read_text(CPUS / f"cpu{cpu}" / "topology" / "thread_siblings_list").strip()
    ends = siblings.replace("-", ",").split(",")
    return 0 if str(cpu) == ends[0] else 1


def _busy_shares():
    """Current load of each processor, in tenths."""
    before = _processor_times()
    time.sleep(LOOK_S)
    shares = {}
    for cpu, (idle, total) in _processor_times().items():
        passed = total - before[cpu][1] if cpu in before else 0
        shares[cpu] = round(10 * (1 - (idle - before[cpu][0]) / passed)) if passed > 0 else 0
    return shares


def _processor_times():
    """{processor: (idle ticks, all ticks)}."""
    times = {}
    for line in read_text("/proc/stat").splitlines():
        name, *ticks = line.split() or [""]
        if name.startswith("cpu") and name[3:].isdigit() and len(ticks) > 4:
            numbers = [int(tick) for tick in ticks[:8]]
            times[int(name[3:])] = (numbers[3] + numbers[4], sum(numbers))
    return times


def host_facts(accelerator=None):
    """Facts that identify this host and its state. `accelerator`: name of the timed GPU."""
    affinity = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ()
    return {
        "cpu": _cpu(),
        "accelerator": accelerator,
        "n_cpus": os.cpu_count() or 1,
        "affinity": sorted(affinity),
        "governor": read_text(CPUS / "cpu0/cpufreq/scaling_governor").strip() or None,
        "load_average": _load_average(),
        "machine": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }


def _load_average():
    """Processes that ran or waited in the last minute; 0.0 if the system does not say."""
    try:
        return os.getloadavg()[0]
    except OSError:  # Android
        return 0.0


def _cpu():
    """Name of the processor, or of the board if it has one."""
    board = read_text("/proc/device-tree/model").strip("\0 \n")
    if board:
        return board
    for line in read_text("/proc/cpuinfo").splitlines():
        if line.lower().startswith(("model name", "hardware")):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine() or "unknown"


def read_text(path):
    """Content of a small system file; empty if it cannot be read."""
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""
