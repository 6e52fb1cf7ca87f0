#!/usr/bin/env python3
"""Times models on this machine by the timing protocol of hwnas (see bench_protocol.py).

    python bench.py plan.json --out results.jsonl
    python bench.py plan.json --try                   check that its models run here, without timing
    python bench.py --runtimes                        list the runtimes of this machine

Needs python >= 3.8, numpy and the runtime of the plan. Results are appended and fsynced about once
a second, so a kill loses at most a second. The same command resumes and repeats no timing. See
README.md and the two schemas in this folder.

A runtime is a file `run_NAME.py` in this folder. It has `INSTALL` (the command that installs its
requirements), `providers()`, and a class `Runner(provider, threads, batch, precision)`. A Runner
has `version`, `accelerator` (name of the GPU, or None), `is_on_cpu`, `works_on_caller` (whether the
calling thread does all the work) and `load(path)`. `load` returns a function that runs the model
once, to its end, and returns None, or the nanoseconds by the clock of the device.
"""

import argparse
import ast
import contextlib
import hashlib
import importlib
import json
import sys
import time
from pathlib import Path

try:
    from bench_host import (
        Hold,
        ProcessClock,
        host_facts,
        never,
        pin,
        too_many,
        uneven,
        usable_processors,
    )
    from bench_json import strict_json
    from bench_protocol import SCHEMA_VERSION, KitError, Results, run, warnings
except ImportError as error:
    if error.name not in ("fcntl", "resource"):
        raise
    sys.exit("bench.py needs Linux or macOS; on Windows, run it in WSL")

HERE = Path(__file__).resolve().parent
REPORT_S = 1.0

# --- plan -----------------------------------------------------------------------------------------

PLAN_KEYS = {
    "schema_version": int,
    "runtime": str,
    "provider": str,
    "precision": str,
    "threads": int,
    "batch": int,
    "seed": int,
    "rounds": int,
    "min_rounds": int,
    "time_budget_s": (int, float),
    "target_error": (int, float),
    "warmup_runs": int,
    "hot_samples": int,
    "turn_budget_s": (int, float),
    "reference": str,
    "items": list,
}
MAY_KEYS = {"force_threads": bool}  # only in plans that need it, so that other hashes stay valid


def load_plan(path):
    """Reads the plan in a JSON file; checks keys, types, and path and sha256 of every model."""
    folder = Path(path).resolve().parent
    if not Path(path).is_file():
        raise KitError(f"no plan at {path}")
    try:
        plan = strict_json(Path(path).read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise KitError(f"cannot read the plan {path}: {error}") from error
    if not isinstance(plan, dict) or plan.get("schema_version") != SCHEMA_VERSION:
        raise KitError(f"{path} is not a plan of schema_version {SCHEMA_VERSION}")
    if odd := (set(plan) - MAY_KEYS.keys()) ^ set(PLAN_KEYS):
        raise KitError(f"{path}: unknown or missing keys: {sorted(odd)}")
    for key, kind in {**PLAN_KEYS, **MAY_KEYS}.items():
        if key in plan and isinstance(plan[key], bool) is not (kind is bool):
            raise KitError(f"{path}: {key} has the wrong type: {plan[key]!r:.80}")
        if key in plan and not isinstance(plan[key], kind):
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
    ids = [item["id"] for item in plan["items"]]
    if len(set(ids)) != len(ids) or not ids:
        raise KitError(f"{path}: items must be present and have unique ids")
    if plan["reference"] not in ids:
        raise KitError(f"{path}: the reference {plan['reference']!r} is not one of the items")
    return plan


# --- runtimes -------------------------------------------------------------------------------------


def runtimes():
    """Names of the runtimes with a file in this folder."""
    return sorted(path.stem[4:] for path in HERE.glob("run_*.py"))


def import_runtime(name):
    """The module of a runtime, with its requirements installed."""
    if name not in runtimes():
        raise KitError(f"unknown runtime {name!r}; here: {', '.join(runtimes())}")
    try:
        return importlib.import_module(f"run_{name}")
    except ImportError as error:
        raise KitError(f"{name}: {error}; fix: {install_line(name)}") from error


def install_line(name):
    """`INSTALL` of a runtime, read without importing it."""
    tree = ast.parse((HERE / f"run_{name}.py").read_text(encoding="utf-8"))
    assignments = (node for node in tree.body if isinstance(node, ast.Assign))
    named = {getattr(node.targets[0], "id", ""): node.value for node in assignments}
    return ast.literal_eval(named["INSTALL"])


def open_runner(plan):
    """The runner of the plan; errors of a runtime are shown with its own message."""
    module = import_runtime(plan["runtime"])
    keys = ("provider", "threads", "batch", "precision")
    try:
        return module.Runner(**{key: plan[key] for key in keys})
    except Exception as error:  # runtimes raise dozens of unrelated classes
        raise KitError(f"{plan['runtime']} cannot start: {error}") from error


def print_runtimes():
    """Prints the runtimes of this machine, and how to install the others."""
    for name in runtimes():
        try:
            module = import_runtime(name)
            found = f"{module.Runner.version}: {', '.join(module.providers())}"
        except KitError as error:
            found = f"not available: {str(error).partition(': ')[2]}"
        except Exception as error:  # as above
            found = f"not usable here: {error}"
        print(f"{name}: {found}")


# --- command line ---------------------------------------------------------------------------------


class StderrProgress:
    """Progress on stderr, at most once in REPORT_S: a JSON line, or an updated terminal line."""

    def __init__(self):
        self._next = 0.0

    def __call__(self, done, total, note, seconds_left):
        """Reports progress; calls within REPORT_S (seconds) of the last one are skipped."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + REPORT_S
        if sys.stderr.isatty():
            left = "" if seconds_left is None else f", at most {seconds_left / 60:.1f} min left"
            print(f"\r{note}: {done} of {total}{left}   ", end="", file=sys.stderr, flush=True)
            return
        line = {"done": done, "total": total, "note": note}
        if seconds_left is not None:
            line["seconds_left"] = round(seconds_left)
        print(json.dumps(line), file=sys.stderr, flush=True)


def loader(plan, plan_path, runner):
    """A function that loads an item of the plan into the runner."""
    folder = plan_path.resolve().parent

    def load(item):
        try:
            return runner.load(folder / item["file"])
        except Exception as error:  # as in open_runner
            raise KitError(f"{plan['runtime']} cannot load {item['file']}: {error}") from error

    return load


def try_out(plan_path):
    """Loads and runs every model of a plan file once."""
    plan = load_plan(plan_path)
    load = loader(plan, plan_path, open_runner(plan))
    for item in plan["items"]:
        once = load(item)
        try:
            once()
        except Exception as error:  # as in open_runner
            raise KitError(f"{plan['runtime']} cannot run {item['file']}: {error}") from error


def occupy_processors(threads, is_forced):
    """Pins this process; refuses more threads than processors unless `is_forced`."""
    problem = too_many(threads)
    if problem and not is_forced:
        raise KitError(
            f"{problem}, so latencies would mean little; fix: set `threads` of the device to "
            f"{usable_processors()}, or force it with `--profile force_threads=true`"
        )
    if note := problem or uneven(threads):
        print(f"bench.py: note: {note}", file=sys.stderr)
    pin(threads)


def bench(plan_path, out, hold=never):
    """Times a plan file into a results file; `hold`: see `bench_protocol.run`."""
    plan = load_plan(plan_path)
    runner = open_runner(plan)
    if runner.is_on_cpu:
        occupy_processors(plan["threads"], is_forced=plan.get("force_threads", False))
    keys = ("runtime", "provider", "precision", "threads", "batch")
    works_alone = runner.is_on_cpu and runner.works_on_caller and plan["threads"] == 1
    facts = {
        **{key: plan[key] for key in keys},
        "runtime_version": runner.version,
        "interrupted_runs": "processor time" if works_alone else "dropped",
    }
    results = Results(out)
    results.open_for(plan, facts, host_facts(runner.accelerator))
    load = loader(plan, plan_path, runner)
    run(plan, load, ProcessClock(works_alone), results, StderrProgress(), hold)
    for warning in warnings(results):
        print(f"bench.py: warning: {warning}", file=sys.stderr)


def main(arguments=None):
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Time the models of a plan on this machine.")
    parser.add_argument("plan", type=Path, nargs="?", help="plan.json, in the folder of its models")
    parser.add_argument("--out", type=Path, help="results.jsonl; resumed if it exists")
    parser.add_argument("--runtimes", action="store_true", help="list the runtimes of this machine")
    parser.add_argument(
        "--try", action="store_true", dest="tries", help="run each model once, without timing"
    )
    parser.add_argument("--hold", type=Path, help="pause while this file exists (device too hot)")
    parser.add_argument(
        "--hold-s", type=float, default=600.0, help="seconds of all pauses together [600]"
    )
    options = parser.parse_args(arguments)
    if not options.runtimes and not (options.plan and (options.out or options.tries)):
        parser.error("give plan.json and --out results.jsonl or --try, or --runtimes")
    try:
        if options.runtimes:
            print_runtimes()
        elif options.tries:
            try_out(options.plan)
        else:
            hold = Hold(options.hold, options.hold_s) if options.hold else never
            bench(options.plan, options.out, hold)
    except KitError as error:
        print(f"bench.py: {error}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, BrokenPipeError):  # BrokenPipe: the parent process is gone
        with contextlib.suppress(OSError):
            print("bench.py: interrupted; the same command resumes from here", file=sys.stderr)
        return 130
    except OSError as error:  # a full disk, or a folder that is not writable
        print(f"bench.py: {error}; then the same command resumes from here", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
