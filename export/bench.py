#!/usr/bin/env python3
"""Times ONNX models on this machine: the one timing protocol of hwnas.

    python bench.py plan.json --out results.jsonl

Needs python >= 3.8, numpy and onnxruntime, nothing else of hwnas. Protocol: in every round, all
items take one turn each, in a fresh random order; a turn is one cold run (the caches hold what the
item before left there) and then hot runs. Slow phases of the machine thus hit all items alike.
Runs during which the kernel took the processor away are marked.

Results are appended and fsynced about once a second, so a kill loses a second; the same command
goes on where it stopped, and times nothing twice. See README.md and the two schemas beside it.
"""

import argparse
import contextlib
import datetime
import fcntl
import gc
import hashlib
import itertools
import json
import os
import platform
import random
import resource
import sys
import time
from pathlib import Path

SCHEMA_VERSION = 1
PROTOCOL = "interleaved-1"  # change it whenever samples stop being comparable with older ones
STOPPING_RULES = ("rounds", "min_rounds", "time_budget_s")  # may change between resumed runs
FLUSH_S = 1.0


class KitError(Exception):
    """Something the user can fix; shown without a traceback, exit status 1."""


# --- plan -----------------------------------------------------------------------------------------

PLAN_KEYS = {
    "schema_version": int,
    "runtime": str,
    "provider": str,
    "threads": int,
    "batch": int,
    "seed": int,
    "rounds": int,
    "min_rounds": int,
    "time_budget_s": (int, float),
    "warmup_runs": int,
    "hot_samples": int,
    "turn_budget_s": (int, float),
    "items": list,
}


def load_plan(path):
    """The plan in a JSON file, checked: keys, types, and every model's path and sha256."""
    folder = Path(path).resolve().parent
    try:
        plan = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise KitError(f"cannot read the plan {path}: {error}") from error
    if not isinstance(plan, dict) or plan.get("schema_version") != SCHEMA_VERSION:
        raise KitError(f"{path} is not a plan of schema_version {SCHEMA_VERSION}")
    if set(plan) != set(PLAN_KEYS):
        raise KitError(f"{path}: unknown or missing keys: {sorted(set(plan) ^ set(PLAN_KEYS))}")
    for key, kind in PLAN_KEYS.items():
        if not isinstance(plan[key], kind) or isinstance(plan[key], bool):
            raise KitError(f"{path}: {key} has the wrong type: {plan[key]!r:.80}")
    for item in plan["items"]:
        if not isinstance(item, dict) or {type(v) for v in item.values()} != {str}:
            raise KitError(f"{path}: not an item: {item!r:.80}")
        if set(item) != {"id", "file", "sha256"}:
            raise KitError(f"{path}: an item has id, file and sha256, found {sorted(item)}")
        model = (folder / item["file"]).resolve()
        if folder not in model.parents or not model.is_file():
            raise KitError(f"{path}: no file {item['file']!r} beside the plan")
        if hashlib.sha256(model.read_bytes()).hexdigest() != item["sha256"]:
            raise KitError(f"{model}: sha256 differs from the plan's: the file was changed")
    if len({item["id"] for item in plan["items"]}) != len(plan["items"]) or not plan["items"]:
        raise KitError(f"{path}: items must be present and have unique ids")
    return plan


def plan_hash(plan):
    """Hash of everything that makes samples comparable; stopping rules are left out."""
    kept = {key: value for key, value in plan.items() if key not in STOPPING_RULES}
    text = json.dumps([PROTOCOL, kept], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


# --- runners and clock ----------------------------------------------------------------------------


class OnnxRuntimeRunner:
    """Loads models into ONNX Runtime sessions that use one provider and a fixed thread count."""

    def __init__(self, provider, threads, batch):
        try:
            import numpy
            import onnxruntime
        except ImportError as error:
            raise KitError(f"{error}; fix: python -m pip install numpy onnxruntime") from error
        available = onnxruntime.get_available_providers()
        if provider not in available:
            # onnxruntime itself would fall back to the CPU with no more than a warning
            raise KitError(f"this onnxruntime has no {provider}; it has {', '.join(available)}")
        onnxruntime.set_default_logger_severity(3)
        self.provider, self.threads, self.batch = provider, threads, batch
        self._ort, self._random = onnxruntime, numpy.random.RandomState(0)

    def facts(self):
        """What the timings depend on, besides the host."""
        return {
            "runtime": "onnxruntime",
            "runtime_version": self._ort.__version__,
            "provider": self.provider,
            "threads": self.threads,
            "batch": self.batch,
        }

    def load(self, path):
        """A function without arguments that runs the model once, on random inputs."""
        ort = self._ort
        options = ort.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_free_dimension_override_by_name("batch", self.batch)
        try:
            session = ort.InferenceSession(str(path), options, providers=[self.provider])
        except Exception as error:  # onnxruntime raises a dozen unrelated classes
            raise KitError(f"onnxruntime cannot load {path}: {error}") from error
        if self.provider not in session.get_providers():
            raise KitError(f"{self.provider} failed to start (see the log above)")
        feed = {value.name: self._array(value) for value in session.get_inputs()}
        names = [value.name for value in session.get_outputs()]
        return lambda: session.run(names, feed)

    def _array(self, value):
        kinds = {"tensor(float)": "float32", "tensor(float16)": "float16"}
        batch, *shape = value.shape
        if value.type not in kinds or not all(isinstance(size, int) for size in shape):
            raise KitError(f"input {value.name!r}: cannot make up a {value.type} {value.shape}")
        if isinstance(batch, int) and batch != self.batch:
            raise KitError(f"the model's batch is {batch}, the plan's {self.batch}")
        return self._random.standard_normal([self.batch, *shape]).astype(kinds[value.type])


RUNNERS = {"onnxruntime": OnnxRuntimeRunner}


class ProcessClock:
    """Nanoseconds, and how often the kernel has taken the processor away from this process."""

    now = staticmethod(time.perf_counter_ns)

    @staticmethod
    def switches():
        """Involuntary context switches so far."""
        return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def host_facts():
    """What identifies this host and its state."""
    cpu = platform.processor() or "unknown"
    for line in _read("/proc/cpuinfo").splitlines():
        if line.lower().startswith(("model name", "hardware")):
            cpu = line.split(":", 1)[1].strip()
            break
    affinity = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ()
    return {
        "cpu": cpu,
        "n_cpus": os.cpu_count() or 1,
        "affinity": sorted(affinity),
        "governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").strip() or None,
        "load_average": os.getloadavg()[0],
        "machine": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }


def _read(path):
    try:
        return Path(path).read_text()
    except OSError:
        return ""


# --- results --------------------------------------------------------------------------------------


class Results:
    """The results file, locked: a header line, then lines of turns. `done` holds (round, item)."""

    def __init__(self, path):
        self._stream = open(path, "ab+")  # noqa: SIM115 - lives as long as the process
        try:
            fcntl.flock(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise KitError(f"{path} is being written by another process") from error
        self._stream.seek(0)
        whole, newline, _torn = self._stream.read().rpartition(b"\n")
        self._stream.truncate(len(whole) + len(newline))
        try:
            self.header, *lines = [json.loads(line) for line in whole.splitlines()] or [None]
            self.done = {(turn[0], turn[1]) for line in lines for turn in line["turns"]}
            self.seconds = sum(line["seconds"] for line in lines)
        except (ValueError, TypeError, LookupError) as error:
            raise KitError(f"{path} is damaged before its last line: {error!r}") from error

    def open_for(self, plan, facts, host):
        """Write the header of a new file; refuse to add to one of another plan, host or runtime."""
        mine = {"plan_hash": plan_hash(plan), **facts, "cpu": host["cpu"]}
        if self.header is None:
            self.header = {"schema_version": SCHEMA_VERSION, "protocol": PROTOCOL, **mine}
            self._write({**self.header, "host": host})
        for key, value in mine.items():
            if self.header.get(key) != value:
                raise KitError(
                    f"{self._stream.name} holds results of another {key}: "
                    f"{self.header.get(key)!r}, now {value!r}; give another --out, or delete it"
                )

    def append(self, turns, preempted, seconds):
        """Write a line of turns and have it on the disk."""
        self._write({"seconds": round(seconds, 6), "turns": turns, "preempted": preempted})
        self.done.update((turn[0], turn[1]) for turn in turns)
        self.seconds += seconds

    def _write(self, line):
        self._stream.write(json.dumps(line, separators=(",", ":")).encode() + b"\n")
        self._stream.flush()
        os.fsync(self._stream.fileno())


# --- protocol -------------------------------------------------------------------------------------


def run(plan, load, clock, results, progress=lambda done, total, note: None):
    """Time the plan's items until a stopping rule holds; append lines of turns to `results`.

    load: item -> function that runs it once. A turn is [round, item index, cold ns, hot ns, ...];
    a line's `preempted` lists [turn, sample] pairs during which the kernel switched.
    """
    n_items = len(plan["items"])
    todo = (
        (number, index)
        for number in range(plan["rounds"])
        for index in round_order(plan["seed"], number, n_items)
        if (number, index) not in results.done
    )
    first = next(todo, None)
    if first is None or _spent(plan, results, first[0], 0.0):
        return
    models = []
    for item in plan["items"]:
        models.append(load(item))
        for _ in range(plan["warmup_runs"]):
            models[-1]()
        progress(len(models), n_items, "loading models")
    turns, preempted, begin, elapsed = [], [], clock.now(), 0.0
    with no_garbage_collection():
        try:
            for number, index in itertools.chain([first], todo):
                if _spent(plan, results, number, elapsed):
                    break
                samples, interrupted = take_turn(models[index], plan, clock)
                preempted += [[len(turns), sample] for sample in interrupted]
                turns.append([number, index, *samples])
                elapsed = (clock.now() - begin) * 1e-9
                if elapsed >= FLUSH_S:
                    results.append(turns, preempted, elapsed)
                    progress(len(results.done), expected_turns(plan, results), "timing")
                    turns, preempted, begin, elapsed = [], [], clock.now(), 0.0
        finally:
            if turns:
                results.append(turns, preempted, elapsed)


def round_order(seed, number, n_items):
    """The random order of one round; the same whenever the round is resumed."""
    order = list(range(n_items))
    random.Random(f"{seed}/{number}").shuffle(order)
    return order


def take_turn(model, plan, clock):
    """Nanoseconds of a cold and then hot runs, and which of them were interrupted.

    At least two hot runs; no more once the turn has taken its budget.
    """
    samples, interrupted = [], []
    deadline = clock.now() + plan["turn_budget_s"] * 1e9
    switches = clock.switches()
    for sample in range(1 + plan["hot_samples"]):
        start = clock.now()
        model()
        end = clock.now()
        samples.append(end - start)
        before, switches = switches, clock.switches()
        if switches != before:
            interrupted.append(sample)
        if end > deadline and sample >= 2:
            break
    return samples, interrupted


def _spent(plan, results, rounds_done, pending_s):
    """Whether the time is used up after enough rounds."""
    seconds = results.seconds + pending_s
    return rounds_done >= plan["min_rounds"] and seconds >= plan["time_budget_s"]


def expected_turns(plan, results):
    """Forecast of the number of turns at which the stopping rule will hold."""
    n_items, done = len(plan["items"]), len(results.done)
    affordable = done * plan["time_budget_s"] / max(results.seconds, 1e-9) / n_items
    rounds = min(plan["rounds"], max(plan["min_rounds"], int(affordable) + 1))
    return max(done, rounds * n_items)


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


# --- command line ---------------------------------------------------------------------------------


class StderrProgress:
    """At most one JSON line a second on stderr: {"done": .., "total": .., "note": ..}."""

    def __init__(self):
        self._next = 0.0

    def __call__(self, done, total, note):
        """Report; calls within a second of the last shown one are swallowed."""
        if time.monotonic() >= self._next:
            line = json.dumps({"done": done, "total": total, "note": note})
            print(line, file=sys.stderr, flush=True)
            self._next = time.monotonic() + 1.0


def main(arguments=None):
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Time the models of a plan on this machine.")
    parser.add_argument("plan", type=Path, help="plan.json, with its models beside it")
    parser.add_argument("--out", type=Path, required=True, help="results.jsonl; resumed if present")
    options = parser.parse_args(arguments)
    try:
        plan = load_plan(options.plan)
        if plan["runtime"] not in RUNNERS:
            raise KitError(f"unknown runtime {plan['runtime']!r}; known: {', '.join(RUNNERS)}")
        runner = RUNNERS[plan["runtime"]](plan["provider"], plan["threads"], plan["batch"])
        results = Results(options.out)
        results.open_for(plan, runner.facts(), host_facts())
        folder = options.plan.resolve().parent

        def load(item):
            return runner.load(folder / item["file"])

        run(plan, load, ProcessClock(), results, StderrProgress())
    except KitError as error:
        print(f"bench.py: {error}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, BrokenPipeError):  # BrokenPipe: whoever started us is gone
        with contextlib.suppress(OSError):
            print("bench.py: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
