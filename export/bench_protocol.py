"""The timing protocol of hwnas, and its results file.

In every round, each item has one turn, in a new random order. A turn is one cold run (with the
caches full of the previous item's data), followed by hot runs. So slow phases of the machine affect
all items equally. One item, the reference, has extra turns all the time, which measure the drift of
the machine. Runs during which the kernel preempted this process are marked. If one thread of this
process does all the work, their sample is the processor time of the run instead of the elapsed
time. Rounds continue until the medians are precise enough, or the time is over.
"""

import contextlib
import errno
import fcntl
import functools
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
PROTOCOL = "interleaved-3"  # change it if samples become incompatible with older ones
STOPPING_RULES = ("rounds", "min_rounds", "time_budget_s", "target_error")  # may change on resuming
FLAGS = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)  # NFS, Lustre, FUSE
FLUSH_S = 1.0
LOCK_PATIENCE_S = 5.0  # an interrupted kit may still be writing
REFERENCE_EVERY = 32  # turns
FEW_ITEMS = 8  # with fewer items, only the reference measures the speed of a round
SETTLED_SHARE = 0.95  # of the items must have a median precise to target_error


class KitError(Exception):
    """A problem that the user can fix; shown without a traceback, exit status 1."""

    def __str__(self):
        """The text with escaped control characters, because names of files may contain them."""
        text = super().__str__()
        return "".join(c if c == "\n" or c.isprintable() else ascii(c)[1:-1] for c in text)


def plan_hash(plan):
    """Hash of all parts of a plan on which samples depend; stopping rules are left out."""
    kept = {key: value for key, value in plan.items() if key not in STOPPING_RULES}
    text = json.dumps([PROTOCOL, kept], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


# --- results --------------------------------------------------------------------------------------


class Results:
    """The results file, locked: a header, lines of turns, and a line of warnings after each run.

    `fastest`: nanoseconds of the fastest hot run, by item index and round. Interrupted runs without
    a processor time are left out. The extra turns of the reference in a round have the indices -1,
    -2, ...
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
        """Opens and locks a regular file; a file with other hard links is copied first."""
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
        """Writes the header of a new file; refuses a file of another plan, host or runtime."""
        mine = {"plan_hash": plan_hash(plan), **facts, "cpu": host["cpu"]}
        if self.header is None:
            self.header = {"schema_version": SCHEMA_VERSION, "protocol": PROTOCOL, **mine}
            self._write({**self.header, "host": host})
        for key, value in mine.items():
            if self.header.get(key) != value:
                name = key.replace("_hash", "").replace("_", " ")
                raise KitError(
                    f"{self._path} holds results of another {name}: "
                    f"{self.header.get(key)!r}, now {value!r}; give another --out, or delete it"
                )

    def has(self, number, index):
        """Whether the turn of an item in a round is done."""
        return number in self.fastest.get(index, ())

    def add(self, number, index, samples, interrupted):
        """Adds a turn; it is on disk after the next `flush`."""
        self._marks += [[len(self._turns), sample] for sample in interrupted]
        self._turns.append([number, index, *samples])
        self._count([[number, index, *samples]], [[0, sample] for sample in interrupted])

    def flush(self, seconds):
        """Writes the turns since the last flush, which took `seconds`, as one line."""
        if self._turns:
            line = {"turns": self._turns, "preempted": self._marks}
            self._write({"seconds": round(seconds, 6), **line})
            self.seconds += seconds
            self._turns, self._marks = [], []

    def close_run(self, warnings):
        """Writes the warnings for all turns so far."""
        self._write({"warnings": warnings})

    def close(self):
        """Closes the file, so that another process or call can continue it."""
        self._stream.close()

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


def run(
    plan,
    load,
    clock,
    results,
    progress=lambda done, total, note, seconds_left: None,
    hold=lambda report: False,
):
    """Times the items of the plan until a stopping rule applies; appends turns to `results`.

    load: maps an item to a function that runs it once.
    hold: pauses while the device is too hot, and returns whether it did; asked once a second. After
        a pause, one turn is taken and not counted.

    A turn is [round, item index, cold ns, hot ns, ...]. `preempted` of a line lists the [turn,
    sample] pairs during which the kernel preempted the process.
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
                    cooling = "waiting for the device to cool down"
                    if hold(functools.partial(progress, results.n_turns, total, cooling, None)):
                        take_turn(models[reference], plan, clock)
                    begin, elapsed = clock.now(), 0.0
        finally:
            results.flush(elapsed)
    results.close_run(warnings(results))


def round_order(seed, number, n_items):
    """Random order of the items of a round, with extra turns -1, -2, ... of the reference.

    The order is the same after resuming.
    """
    order = list(range(n_items))
    random.Random(f"{seed}/{number}").shuffle(order)
    for extra, position in enumerate(range(0, n_items, REFERENCE_EVERY)):
        order.insert(position + extra, -1 - extra)
    return order


class Orders:
    """The missing turns of a plan, for timing that is done elsewhere (by a page, by a binary)."""

    def __init__(self, plan, results):
        self._plan, self._results, self._position = plan, results, 0
        n_items = len(plan["items"])
        self._todo = [
            (number, index)
            for number in range(plan["rounds"])
            for index in round_order(plan["seed"], number, n_items)
        ]

    def next(self, most):
        """At most `most` turns [round, item index] of one round; none: a stopping rule applies."""
        results, todo = self._results, self._todo
        while self._position < len(todo) and results.has(*todo[self._position]):
            self._position += 1
        if self._position == len(todo):
            return []
        number = todo[self._position][0]
        order = round_order(self._plan["seed"], number, len(self._plan["items"]))
        is_new_round = not any(results.has(number, index) for index in order)
        if results.n_turns and is_finished(self._plan, results, number, 0.0, is_new_round):
            return []
        missing = (turn for turn in todo[self._position :] if not results.has(*turn))
        same_round = itertools.takewhile(lambda turn: turn[0] == number, missing)
        return [list(turn) for turn in itertools.islice(same_round, most)]


def take_turn(model, plan, clock):
    """Nanoseconds of a cold and further hot runs, and which of them were interrupted.

    There are at least two hot runs, and no more after the turn has used its budget. The sample of
    an interrupted run is its processor time, if the clock supports it. Then an interruption only
    affects the caches of the run.
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
    """Whether, after enough rounds, the time is over or the medians are precise enough.

    Precision is computed each time the number of rounds has grown by a tenth.
    """
    if rounds_done < plan["min_rounds"]:
        return False
    if results.seconds + pending_s >= plan["time_budget_s"]:
        return True
    is_time_to_look = is_new_round and rounds_done % max(1, rounds_done // 10) == 0
    return is_time_to_look and median_error(results, SETTLED_SHARE) < plan["target_error"]


def median_error(results, share):
    """Half-width of the 90 % interval of the median of an item, as a fraction of the median.

    The result is the quantile `share` over all items. Rounds are corrected as on the host. The
    interval is distribution-free: between order statistics, for at least five rounds.
    """
    slowness = round_factors(results.fastest)
    errors = []
    for index, by_round in results.fastest.items():
        if index >= 0:
            values = sorted(ns / slowness[number] for number, ns in by_round.items())
            n = len(values)
            if n < 5:  # the full range would cover less than 90 %
                return float("inf")
            low = max(0, int(n / 2 - 0.8225 * n**0.5))  # normal quantile 1.645, times sqrt(n) / 2
            errors.append((values[n - 1 - low] - values[low]) / 2 / statistics.median(values))
    errors.sort()
    return errors[min(len(errors) - 1, int(share * len(errors)))]


def round_factors(fastest):
    """{round: slow-down factor}: the median over all turns.

    With few items only the reference is used, because an item must not be corrected by itself.
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
    """Estimated number of turns until the time or the rounds are used up."""
    per_round = len(round_order(0, 0, len(plan["items"])))
    affordable = results.n_turns * plan["time_budget_s"] / max(results.seconds, 1e-9) / per_round
    rounds = min(plan["rounds"], max(plan["min_rounds"], int(affordable) + 1))
    return max(results.n_turns, rounds * per_round)


def warnings(results):
    """Problems that the samples reveal, in words."""
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
                "or power, or another program that keeps running"
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
    """Disables the garbage collector of Python within the context."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
