"""Latencies of a bundle on this device, compared with the manifest and its limits.

The rule is that of `hwnas verify BUNDLE` (hwnas/measure/bundle_latency.py; tests compare the two).
The pace is the time that this machine takes now / when the bundle was made. The pace for a model
comes from the *other* models of the same run, so that a model cannot hide its own slow-down.
Timings are divided by the pace. If the pace is off by more than a quarter, nothing can be judged. A
single model is judged without a pace. If a limit is exceeded by less than the noise, or if the
noise exceeds the accepted error, the check cannot be judged.
"""

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from bundle_checks import finding
from bundle_files import BundleError

FASTEST, SLOWEST = 0.8, 1.25  # range of paces in which a timing can be judged
SLACK = 0.05  # accepted excess over the re-timed latency
NOISE_FACTOR = 2.0  # uncertainty of timings, as a multiple of their repeat noise
LIMITS = {"latency_ms": "latency", "latency_p95_ms": "p95 latency"}
SPEC = ("runtime", "provider", "precision", "threads", "batch")  # parts of a device in a plan
TIMING = {
    "schema_version": 1,
    "seed": 0,
    "rounds": 15,
    "min_rounds": 5,
    "target_error": 0.0,
    "warmup_runs": 5,
    "hot_samples": 20,
    "turn_budget_s": 0.5,
}


# --- judging --------------------------------------------------------------------------------------


def verdict(excess, pace, noise):
    """Whether a timing with relative `excess` over its limit passes; None: not judged."""
    if pace is not None and not FASTEST <= pace <= SLOWEST:
        return None
    if excess > noise:
        return False
    return True if excess <= (0 if noise <= SLACK else -noise) else None


def judge(fact, constraints, measured_ms, pace=None, noise=0.0):
    """Checks of one latency: {name: (passed, sentence)}; passed None: not judged.

    measured_ms: (median, 95th percentile) on this device.
    pace: None if unknown.
    noise: relative uncertainty of a timing.

    There is a check `latency` if the manifest has a latency, and `... limit` if the search had a
    limit.
    """
    here_ms = [ms / (pace or 1.0) for ms in measured_ms]
    bounds = [fact["interval_ms"][1]] if fact["interval_ms"] else []
    bounds += [fact["measured_ms"] * (1 + SLACK)] if fact["measured_ms"] else []
    checks = {}
    if bounds:
        relation = "within" if here_ms[0] <= max(bounds) else "exceeds"
        text = f"{here_ms[0]:.4f} ms, {relation} the promise of at most {max(bounds):.4f} ms"
        checks["latency"] = (here_ms[0] / max(bounds) - 1, text)
    widening = 1.0
    if fact["interval_ms"] and fact["forecast_ms"]:
        widening = fact["interval_ms"][1] / fact["forecast_ms"]
    for (metric, name), ms in zip(LIMITS.items(), here_ms):
        limits_ms = [
            constraint["max"]
            for constraint in constraints
            if constraint["metric"] == metric
            and constraint["device"] == fact["device"]["name"]
            and fact["forecast_ms"]  # the winner of the search
        ]
        if limits_ms:
            excess = ms / (limits_ms[-1] * widening) - 1
            relation = "is within" if ms <= limits_ms[-1] else "exceeds"
            text = f"{name} {ms:.4f} ms {relation} the limit of {limits_ms[-1]:.4f} ms"
            if excess <= 0 and ms > limits_ms[-1]:
                most = limits_ms[-1] * widening
                text += f", but passes: the interval of its estimate allows {most:.4f} ms"
            checks[f"{name} limit"] = (excess, text)
    return {name: (verdict(excess, pace, noise), text) for name, (excess, text) in checks.items()}


def latency_findings(model, fact, constraints, measured_ms, pace=None, noise=0.0):
    """Findings on one latency of this device, see `judge`; the first one shows the timing."""
    device = fact["device"]
    promised = ", ".join(
        f"{label} {fact[key]:.3f} ms"
        for label, key in (("estimate", "forecast_ms"), ("measured", "measured_ms"))
        if fact[key]
    )
    detail = (
        f"{measured_ms[0]:.3f} ms here; {promised or 'nothing promised'} on {device['name']} "
        f"({fact['host']}, batch {device['batch']}, {device['threads']} thread(s))"
    )
    if pace is not None:
        detail += f"; by the other models, this machine takes {pace:.2f} times as long"
    checks = judge(fact, constraints, measured_ms, pace, noise)
    is_near = pace is None or FASTEST <= pace <= SLOWEST
    if not is_near:
        detail += ", too far from it to judge"
    elif any(passed is None for passed, _ in checks.values()):
        detail += (
            f"; not judged: this machine's repeat noise is {noise / NOISE_FACTOR:.1%}, run again"
            " when quiet"
        )
    is_judged = is_near and ("latency" not in checks or checks["latency"][0] is not None)
    passed, _ = checks.pop("latency", (None, ""))
    found = [finding(model, "latency", passed, detail, judged=is_judged)]
    for name, (held, text) in checks.items():
        found.append(finding(model, name, held, text, judged=held is not None))
    return found


# --- timing ---------------------------------------------------------------------------------------


def check_latencies(folder, manifest, models, runtime):
    """Findings on the latencies of `models` in a runtime; models of one device take turns."""
    facts = [fact for fact in manifest["latency"] if fact["model"] in models]
    groups = {}
    for fact in facts:
        if fact["device"]["runtime"] == runtime:
            groups.setdefault(json.dumps(group_of(fact), sort_keys=True), []).append(fact)
    found = []
    for group in groups.values():
        paths = sorted({fact["model"] for fact in group})
        try:
            timed, noise = measure_ms([folder / path for path in paths], group[0]["device"])
        except BundleError as error:
            found += [finding(models[path], "latency", None, str(error)) for path in paths]
            continue
        here_ms = dict(zip(paths, timed))
        for fact in group:
            found += latency_findings(
                models[fact["model"]],
                fact,
                manifest["constraints"],
                here_ms[fact["model"]],
                pace_of(fact, group, here_ms),
                NOISE_FACTOR * noise,
            )
    return found


def group_of(fact):
    """Key of the facts that were timed together, and are timed together here."""
    keys = ("name", "runtime", "provider", "threads", "batch")
    return [fact["host"], *(fact["device"][key] for key in keys)]


def pace_of(fact, group, here_ms):
    """Time of the other models of a group here / in the manifest; None if there are none."""
    ratios = [
        here_ms[other["model"]][0] / other["measured_ms"]
        for other in group
        if other is not fact and other["measured_ms"]
    ]
    return float(np.median(ratios)) if ratios else None


def measure_ms(paths, device):
    """(median, 95th percentile) of every model, and repeat noise, by the bench.py in this folder.

    The median is over the fastest hot run of each round. The percentile is over the second half of
    the hot runs of every turn. The noise is the difference of the medians of even and odd rounds.
    """
    with tempfile.TemporaryDirectory() as name:
        folder, items = Path(name), []
        for index, path in enumerate(paths):
            shutil.copyfile(path, folder / f"{index}{path.suffix}")
            if path.suffix == ".xml":  # the weights of OpenVINO
                shutil.copyfile(path.with_suffix(".bin"), folder / f"{index}.bin")
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            items.append({"id": str(index), "file": f"{index}{path.suffix}", "sha256": digest})
        plan = {**TIMING, "reference": "0", "items": items}
        plan.update((key, device[key]) for key in SPEC)
        plan["time_budget_s"] = 5.0 * len(items)
        (folder / "plan.json").write_text(json.dumps(plan))
        bench = Path(__file__).resolve().with_name("bench.py")
        command = [*interpreter(), bench, folder / "plan.json", "--out", folder / "results.jsonl"]
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
        if done.returncode != 0:
            said = [line for line in done.stderr.splitlines() if line[:1] != "{"]
            raise BundleError(f"not timed: {' '.join(said)[-300:]}")
        header, *lines = [json.loads(line) for line in (folder / "results.jsonl").open()]
    return statistics(lines, len(paths), drops=header["interrupted_runs"] == "dropped")


def interpreter():
    """The command that starts this Python again.

    In a runtime folder it is a script for `sh`; its first line names /bin/sh, which not every phone
    has.
    """
    with open(sys.executable, "rb") as stream:
        is_script = stream.read(2) == b"#!"
    return ["sh", sys.executable] if is_script else [sys.executable]


def statistics(lines, n_items, drops):
    """The result of `measure_ms`. lines: of a results file; drops: ignore interrupted runs."""
    fastest, settled = [{} for _ in range(n_items)], [[] for _ in range(n_items)]
    for line in lines:
        marked = {(turn, sample) for turn, sample in line.get("preempted", ())} if drops else set()
        for turn, (number, index, *samples) in enumerate(line.get("turns", ())):
            if index < 0:
                continue  # an extra turn of the reference
            hot = [ns for i, ns in enumerate(samples) if i and (turn, i) not in marked]
            fastest[index][number] = min(hot or samples[1:]) / 1e6
            half = 1 + (len(samples) - 1) // 2
            settled[index] += [
                ns / 1e6 for i, ns in enumerate(samples) if i >= half and (turn, i) not in marked
            ]
    found, noises = [], []
    for rounds, runs in zip(fastest, settled):
        values = [rounds[number] for number in sorted(rounds)]
        p95 = float(np.quantile(runs or values, 0.95))
        found.append((float(np.median(values)), max(p95, float(np.quantile(values, 0.9)))))
        if len(values) > 1:
            even, odd = np.median(values[0::2]), np.median(values[1::2])
            noises.append(abs(even - odd) / odd)
    return found, float(np.mean(noises)) if noises else 0.0
