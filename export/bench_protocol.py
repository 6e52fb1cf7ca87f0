"""The one timing protocol of hwnas, and the file that its samples go to.

In every round, all items take one turn each, in a fresh random order; a turn is one cold run (the
caches hold what the item before left there) and then hot runs. Slow phases of the machine thus hit
all items alike. One item, the reference, takes extra turns all along, so the machine's own drift is
known. Runs during which the kernel took the processor away are marked; of those that one thread of
this process does alone, the sample is the processor time that the run had, not the time that
passed. Rounds go on until the medians are known well enough, or the time is spent.
"""

import contextlib
import errno
import fcntl
import gc
import hashlib
import itertools
import json
import os
import random
import shutil
import stat
import statistics
import sys
import time
from pathlib import Path

SCHEMA_VERSION = 1
PROTOCOL = "interleaved-3"  # change it whenever samples stop being comparable with older ones
STOPPING_RULES = ("rounds", "min_rounds", "time_budget_s", "target_error")  # may change on resuming
FLAGS = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)  # NFS, Lustre, FUSE
FLUSH_S = 1.0
LOCK_PATIENCE_S = 5.0  # an interrupted kit may still be writing its last line
REFERENCE_EVERY = 32  # turns
FEW_ITEMS = 8  # with fewer, only the reference tells how fast a round was
SETTLED_SHARE = 0.95  # of the items, whose medians are to be known to target_error


class KitError(Exception):
    """Something the user can fix; shown without a traceback, exit status 1."""

    def __str__(self):
        """Names of files and devices may hold control characters: they are shown by their codes."""
        text = super().__str__()
        return "".join(c if c == "\n" or c.isprintable() else ascii(c)[1:-1] for c in text)


def plan_hash(plan):
    """Hash of everything that makes samples comparable; stopping rules are left out."""
    kept = {key: value for key, value in plan.items() if key not in STOPPING_RULES}
    text = json.dumps([PROTOCOL, kept], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


# --- results --------------------------------------------------------------------------------------


class Results:
    """The results file, locked: a header, lines of turns, and a line of warnings after each run.

    `fastest`: by item index and round, nanoseconds of the fastest hot run; where interrupted runs
    have no processor time of their own, of those that were not interrupted. The reference's extra
    turns in a round have the indices -1, -2, ...
    """

    def __init__(self, path):
        self._path = Path(path)
        self._open(self._path)
        self._stream.seek(0)
        whole, newline, _torn = self._stream.read().rpartition(b"\n")
        self._stream.truncate(len(whole) + len(newline))
        self.header, self.fastest, self.seconds = None, {}, 0.0
        self.n_turns = self.n_runs = self.n_interrupted = 0
        self._turns, self._marks = [], []
        try:
            self.header, *lines = [json.loads(line) for line in whole.splitlines()] or [None]
            for line in lines:
                if "turns" in line:
                    self._count(line["turns"], line["preempted"])
                    self.seconds += line["seconds"]
        except (ValueError, TypeError, LookupError, RecursionError) as error:
            raise KitError(f"{path} is damaged before its last line: {error!r}") from error

    def _open(self, path):
        """Open and lock a regular file; one that has other names (hard links) is copied first."""
        self._open_locked(path)
        if os.fstat(self._stream.fileno()).st_nlink > 1:
            copy = path.with_name(f".{path.name}.copy")
            copy.unlink(missing_ok=True)
            self._stream.seek(0)
            with open(copy, "xb") as target:
                shutil.copyfileobj(self._stream, target)
            os.replace(copy, path)
            self._open_locked(path)

    def _open_locked(self, path):
        try:
            handle = os.open(path, FLAGS, 0o666)
        except OSError as error:
            raise KitError(f"cannot write {path}: {error.strerror}; give another --out") from error
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            raise KitError(f"{path} is not a regular file; give another --out")
        self._stream = open(handle, "ab+")  # noqa: SIM115 - lives as long as the process
        self._lock(path)
        if not os.path.samestat(os.stat(path), os.fstat(handle)):
            raise KitError(f"{path} is being written by another process")

    def _lock(self, path):
        deadline = time.monotonic() + LOCK_PATIENCE_S
        while True:
            try:
                fcntl.flock(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except OSError as error:
                if error.errno in NO_LOCKS:
                    text = f"{path}: this file system has no locks ({error.strerror})"
                    print(text, file=sys.stderr)
                    return
                if time.monotonic() >= deadline:
                    raise KitError(f"{path} is being written by another process") from error
            time.sleep(0.1)

    def open_for(self, plan, facts, host):
        """Write the header of a new file; refuse to add to one of another plan, host or runtime."""
        mine = {"plan_hash": plan_hash(plan), **facts, "cpu": host["cpu"]}
        if self.header is None:
            self.header = {"schema_version": SCHEMA_VERSION, "protocol": PROTOCOL, **mine}
            self._write({**self.header, "host": host})
        for key, value in mine.items():
            if self.header.get(key) != value:
                raise KitError(
                    f"{self._path} holds results of another {key}: "
                    f"{self.header.get(key)!r}, now {value!r}; give another --out, or delete it"
                )

    def has(self, number, index):
        """Whether the turn of an item in a round is done."""
        return number in self.fastest.get(index, ())

    def add(self, number, index, samples, interrupted):
        """Take a turn; it is on the disk after the next `flush`."""
        self._marks += [[len(self._turns), sample] for sample in interrupted]
        self._turns.append([number, index, *samples])
        self._count([[number, index, *samples]], [[0, sample] for sample in interrupted])

    def flush(self, seconds):
        """Write the turns taken since the last flush, in `seconds`, as one line."""
        if self._turns:
            line = {"turns": self._turns, "preempted": self._marks}
            self._write({"seconds": round(seconds, 6), **line})
            self.seconds += seconds
            self._turns, self._marks = [], []

    def close_run(self, warnings):
        """Write how trustworthy all turns so far are."""
        self._write({"warnings": warnings})

    def _count(self, turns, preempted):
        marked = {(turn, sample) for turn, sample in preempted}
        for position, (number, index, *samples) in enumerate(turns):
            drops = self.header["interrupted_runs"] == "dropped"
            hot = [
                ns for s, ns in enumerate(samples) if s and not (drops and (position, s) in marked)
            ]
            self.fastest.setdefault(index, {})[number] = min(hot or samples[1:])
            self.n_runs += len(samples)
        self.n_turns += len(turns)
        self.n_interrupted += len(marked)

    def _write(self, line):
        self._stream.write(json.dumps(line, separators=(",", ":")).encode() + b"\n")
        self._stream.flush()
        os.fsync(self._stream.fileno())


# --- protocol -------------------------------------------------------------------------------------


def run(plan, load, clock, results, progress=lambda done, total, note, seconds_left: None):
    """Time the plan's items until a stopping rule holds; append lines of turns to `results`.

    load: item -> function that runs it once. A turn is [round, item index, cold ns, hot ns, ...];
    a line's `preempted` lists [turn, sample] pairs during which the kernel switched.
    """
    n_items = len(plan["items"])
    reference = [item["id"] for item in plan["items"]].index(plan["reference"])
    todo = (
        (number, index)
        for number in range(plan["rounds"])
        for index in round_order(plan["seed"], number, n_items)
        if not results.has(number, index)
    )
    first = next(todo, None)
    if first is None or is_finished(plan, results, first[0], 0.0):
        return
    models = []
    for item in plan["items"]:
        models.append(load(item))
        for _ in range(plan["warmup_runs"]):
            models[-1]()
        progress(len(models), n_items, "loading models", None)
    begin, elapsed, current = clock.now(), 0.0, first[0]
    with no_garbage_collection():
        try:
            for number, index in itertools.chain([first], todo):
                if is_finished(plan, results, number, elapsed, is_new_round=number > current):
                    break
                current = number
                model = models[index if index >= 0 else reference]
                results.add(number, index, *take_turn(model, plan, clock))
                elapsed = (clock.now() - begin) * 1e-9
                if elapsed >= FLUSH_S:
                    results.flush(elapsed)
                    total = expected_turns(plan, results)
                    left_s = (total / results.n_turns - 1) * results.seconds
                    progress(results.n_turns, total, "timing", left_s)
                    begin, elapsed = clock.now(), 0.0
        finally:
            results.flush(elapsed)
    results.close_run(warnings(results))


def round_order(seed, number, n_items):
    """Random order of a round's items, with the reference's extra turns -1, -2, ... in between.

    The same whenever the round is resumed.
    """
    order = list(range(n_items))
    random.Random(f"{seed}/{number}").shuffle(order)
    for extra, position in enumerate(range(0, n_items, REFERENCE_EVERY)):
        order.insert(position + extra, -1 - extra)
    return order


def take_turn(model, plan, clock):
    """Nanoseconds of a cold and then hot runs, and which of them were interrupted.

    At least two hot runs; no more once the turn has taken its budget. An interrupted run has the
    processor time that it took, where the clock can tell: a neighbour that holds the processor for
    a while then costs a run its caches, and no more.
    """
    samples, interrupted = [], []
    deadline = clock.now() + plan["turn_budget_s"] * 1e9
    switches = clock.switches()
    for sample in range(1 + plan["hot_samples"]):
        begun, start = clock.work(), clock.now()
        measured = model()
        end, done = clock.now(), clock.work()
        samples.append(end - start if measured is None else measured)
        before, switches = switches, clock.switches()
        if switches != before:
            interrupted.append(sample)
            if measured is None and begun is not None:
                samples[-1] = max(1, done - begun)
        if end > deadline and sample >= 2:
            break
    return samples, interrupted


def is_finished(plan, results, rounds_done, pending_s, is_new_round=True):
    """Whether after enough rounds the time is used up, or the medians are known well enough.

    The latter is looked at as the number of rounds grows by a tenth.
    """
    if rounds_done < plan["min_rounds"]:
        return False
    if results.seconds + pending_s >= plan["time_budget_s"]:
        return True
    is_time_to_look = is_new_round and rounds_done % max(1, rounds_done // 10) == 0
    return is_time_to_look and median_error(results, SETTLED_SHARE) < plan["target_error"]


def median_error(results, share):
    """Half-width of the 90 % interval of an item's median, as a fraction of it.

    Of all items, the one that `share` of them do not exceed. Rounds are corrected as the host does.
    The interval is distribution-free: between order statistics, of five rounds or more.
    """
    slowness = round_factors(results.fastest)
    errors = []
    for index, by_round in results.fastest.items():
        if index >= 0:
            values = sorted(ns / slowness[number] for number, ns in by_round.items())
            n = len(values)
            if n < 5:  # their whole range would cover less than 90 %
                return float("inf")
            low = max(0, int(n / 2 - 0.8225 * n**0.5))  # normal quantile 1.645, times sqrt(n) / 2
            errors.append((values[n - 1 - low] - values[low]) / 2 / statistics.median(values))
    errors.sort()
    return errors[min(len(errors) - 1, int(share * len(errors)))]


def round_factors(fastest):
    """{round: how much slower than usual it was}: the median over all turns; of few items, only
    the reference's, for an item must not be corrected by itself.
    """
    n_items = sum(1 for index in fastest if index >= 0)
    by_round = {}
    for index, ns in fastest.items():
        if index < 0 or n_items >= FEW_ITEMS:
            usual = statistics.median(ns.values())
            for number, value in ns.items():
                by_round.setdefault(number, []).append(value / usual)
    factors = {number: statistics.median(ratios) for number, ratios in by_round.items()}
    numbers = {number for ns in fastest.values() for number in ns}
    return {number: factors.get(number, 1.0) for number in numbers}


def expected_turns(plan, results):
    """Forecast of the number of turns at which the time or the rounds are used up."""
    per_round = len(round_order(0, 0, len(plan["items"])))
    affordable = results.n_turns * plan["time_budget_s"] / max(results.seconds, 1e-9) / per_round
    rounds = min(plan["rounds"], max(plan["min_rounds"], int(affordable) + 1))
    return max(results.n_turns, rounds * per_round)


def warnings(results):
    """What the samples say against themselves, in words."""
    found = []
    share = results.n_interrupted / results.n_runs
    if share > 0.1:
        found.append(
            f"noisy neighbours: {share:.0%} of the runs were interrupted by other processes"
        )
    turns = [(n, -i, ns) for i, by in results.fastest.items() if i < 0 for n, ns in by.items()]
    pace = [ns for _, _, ns in sorted(turns)]
    if len(pace) >= 6:
        third = len(pace) // 3
        change = statistics.median(pace[-third:]) / statistics.median(pace[:third]) - 1
        deciles = statistics.quantiles(pace, n=10)
        if change > 0.05:
            found.append(
                f"the machine became {change:.0%} slower while it was timed: throttling by heat "
                "or power, or a neighbour that came to stay"
            )
        elif deciles[-1] > 1.1 * deciles[0]:
            found.append(
                f"unsteady machine: the slow tenth of the reference's turns took "
                f"{deciles[-1] / deciles[0] - 1:.0%} longer than the fast tenth "
                "(busy neighbours, or a changing clock)"
            )
    return found


@contextlib.contextmanager
def no_garbage_collection():
    """Python's collector must not run inside a sample."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
