"""The host of the kit: its clock, its facts, and the processors that the kit uses."""

import contextlib
import datetime
import os
import platform
import resource
import time
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")
CPUS = Path("/sys/devices/system/cpu")
HOLD_STEP_S = 1.0
LOOK_S = 0.1  # observation time for the load of processors
EQUAL_SPEED = 0.9  # processors of one kind differ by less (boosts of single cores: a few percent)
QUOTAS = {
    "cpu.max": ("", "unified"),
    "cpu.cfs_quota_us": ("cpu", "cpu,cpuacct"),
}
"""Files with a quota in cgroups of version 2 and 1, and folders below CGROUP that have them."""


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
    the least busy ones. It selects only processors that this process may use already.
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
    """What is wrong if several threads have fewer processors, or less quota; else empty."""
    usable = min(len(allowed_processors()), quota())
    if n_threads <= max(usable, 1):
        return ""
    return (
        f"{n_threads} threads, but this process may use {usable:g} of {os.cpu_count() or 1} "
        "processors: threads will wait for each other"
    )


def uneven(n_threads):
    """A warning if the threads do not all get processors of the fastest kind, or no whole one.

    Threads share the work of an operator evenly, so the slowest processor sets the pace.
    """
    if (share := quota()) < 1:
        return f"the quota of this process is {share:g} processors: it pauses again and again"
    speeds = sorted(map(_speed, allowed_processors()), reverse=True)[:n_threads]
    n_fast = sum(speed >= EQUAL_SPEED * speeds[0] for speed in speeds)
    if n_fast == len(speeds):
        return ""
    return (
        f"{n_threads} threads, but only {n_fast} of the fastest processors: "
        "the slower ones set the pace"
    )


def usable_processors():
    """Number of threads that can run all the time: by affinity, and by the quota of cgroups."""
    return int(max(1, min(len(allowed_processors()), quota())))


def allowed_processors():
    """Processors that this process may use, by its affinity; all, if the system does not say."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def quota():
    """Processors' worth of time that the cgroups of this process may use; infinity: no limit.

    The limit of every cgroup holds for those inside it, so the smallest one counts, from the cgroup
    of this process up to the root of what it sees. In a container, that root is its own cgroup.
    """
    shares = [float("inf")]
    for line in read_text(OWN_CGROUPS).splitlines() or ["0::/", "1:cpu:/"]:
        _, kinds, path = [*line.split(":", 2), "", ""][:3]
        name = "cpu.max" if not kinds else "cpu.cfs_quota_us"
        if kinds and "cpu" not in kinds.split(","):
            continue
        inside = [part for part in path.split("/") if part not in ("", "..")]
        for root in QUOTAS[name]:
            for depth in range(len(inside) + 1):
                shares.append(_share(CGROUP.joinpath(root, *inside[:depth], name)))
    return min(shares)


def _share(path):
    """The quota in a file of a cgroup, in processors; infinity if there is none."""
    words = read_text(path).split()
    if len(words) == 1:  # version 1: the period is in another file
        words += read_text(path.with_name("cpu.cfs_period_us")).split()
    numbers = [int(word) for word in words if word.isdigit()]
    return numbers[0] / numbers[1] if len(numbers) == 2 and all(numbers) else float("inf")


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
