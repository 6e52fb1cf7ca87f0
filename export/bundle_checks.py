"""What a bundle promises, checked on this device with whatever runtime runs its models.

`predict` is a function of inputs [n, C, H, W] to logits [n, classes], float32. A finding is a dict:
`model`, `check`, `passed` (None: nothing was promised, or it cannot be checked here), `detail`.
"""

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from bundle_files import BundleError, read_golden
from bundle_images import labelled_images, preprocess, read_samples

BATCH = 32  # images at once
LEAST_CHANCE = 0.01  # a shortfall that chance brings about less often than this is one
MARGIN = 1.05  # a latency may exceed the re-timed one by this factor
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


def finding(model, check, passed, detail):
    """See the module."""
    return {"model": model["path"], "check": check, "passed": passed, "detail": detail}


def show(found):
    """One line per finding; returns whether nothing fell short."""
    words = {True: "ok", False: "FALLS SHORT", None: "--"}
    for line in found:
        print(f"{line['model']}: {line['check']}: {words[line['passed']]}: {line['detail']}")
    return all(line["passed"] is not False for line in found)


# --- what a model computes ------------------------------------------------------------------------


def check_outputs(folder, manifest, model, predict, data=None):
    """Findings of a model: golden outputs, the bundle's samples, accuracy on the user's images."""
    found = [check_golden(folder, manifest, model, predict)]
    if manifest["samples"]:
        found.append(check_samples(folder, manifest, model, predict))
    if data is not None:
        found.append(check_accuracy(manifest, model, predict, data))
    return found


def check_golden(folder, manifest, model, predict):
    """The logits of torch, within the model's tolerance, and the same classes."""
    inputs, expected = read_golden(folder, manifest)
    found = predict(inputs)
    if found.shape != expected.shape:
        detail = f"outputs {list(found.shape)}, expected {list(expected.shape)}"
        return finding(model, "golden outputs", False, detail)
    relative = float(np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-30))
    n_equal = int((found.argmax(1) == expected.argmax(1)).sum())
    tolerance, least = model["parity_tolerance"], model["min_agreement"]
    passed = bool(relative <= tolerance) and agrees(n_equal, len(found), least)  # NaN does not
    detail = (
        f"relative difference {relative:.1e} (allowed {tolerance:.0e}), "
        f"top-1 agreement {n_equal} of {len(found)} (promised {least:.1%})"
    )
    return finding(model, "golden outputs", passed, detail)


def check_samples(folder, manifest, model, predict):
    """The bundle's own images, from file to class, as torch classifies them."""
    x, labels, predicted = read_samples(folder, manifest)
    found = predict(x).argmax(1)
    n_equal, n_right = int((found == predicted).sum()), int((found == labels).sum())
    detail = (
        f"{n_equal} of {len(x)} classified as by torch, "
        f"{n_right} rightly (torch {int((predicted == labels).sum())})"
    )
    return finding(model, "samples", agrees(n_equal, len(x), model["min_agreement"]), detail)


def check_accuracy(manifest, model, predict, data):
    """Top-1 on the user's labelled images against the promised one."""
    read, labels = labelled_images(data, manifest["input"]["class_names"])
    n_right = 0
    for start in range(0, len(labels), BATCH):
        part = range(start, min(start + BATCH, len(labels)))
        x = np.stack([preprocess(read(index), manifest["input"]) for index in part])
        n_right += int((predict(x).argmax(1) == labels[start : start + BATCH]).sum())
    detail = f"{n_right / len(labels):.2%} of {len(labels)} images here"
    facts = [fact for fact in manifest["accuracy"] if fact["model"] == model["path"]]
    facts = [fact for fact in facts if fact["split"] == "test"] or facts
    if not facts:
        return finding(model, "accuracy", None, f"{detail}; nothing promised")
    fact = facts[0]
    n_promised = round(fact["top1"] * fact["n_images"])
    chance = chance_of_fewer(n_right, len(labels), n_promised, fact["n_images"])
    detail += f"; promised {fact['top1']:.2%} ({fact['n_images']} images of {fact['dataset']})"
    return finding(model, "accuracy", chance >= LEAST_CHANCE, detail)


def agrees(n_equal, n, least):
    """Whether n_equal of n images speak for an agreement of at least `least` in the long run.

    Binomial: a promise of 98 % is not broken by one image of 16.
    """
    if n_equal == n or least in (0, 1):
        return n_equal >= n * least
    return binomial_tail(n - n_equal, n, 1 - least) >= LEAST_CHANCE


def binomial_tail(k, n, p):
    """Probability of k or more of n events of probability p, 0 < p < 1."""
    logs = log_factorials(n)
    i = np.arange(k, n + 1)
    terms = logs[n] - logs[i] - logs[n - i] + i * np.log(p) + (n - i) * np.log1p(-p)
    return float(np.exp(terms).sum())


def chance_of_fewer(right, n, promised_right, promised_n):
    """Probability that of equally good sets one has so few right answers (Fisher's exact test)."""
    logs = log_factorials(n + promised_n)
    total = right + promised_right

    def log_ways(count, picked):
        return logs[count] - logs[picked] - logs[count - picked]

    i = np.arange(max(0, total - promised_n), right + 1)
    terms = log_ways(n, i) + log_ways(promised_n, total - i) - log_ways(n + promised_n, total)
    return float(np.exp(terms).sum())


def log_factorials(n):
    """log i! for i = 0..n."""
    return np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])


# --- latency --------------------------------------------------------------------------------------


def check_latencies(folder, facts, models):
    """Findings on promised latencies of one runtime: all models of a spec are timed in turn."""
    found = []
    specs = {json.dumps(spec_of(fact), sort_keys=True): spec_of(fact) for fact in facts}
    for spec in specs.values():
        alike = [fact for fact in facts if spec_of(fact) == spec]
        paths = sorted({fact["model"] for fact in alike})
        try:
            here_ms = dict(zip(paths, measure_ms([folder / path for path in paths], spec)))
        except BundleError as error:
            found += [finding(models[path], "latency", None, str(error)) for path in paths]
            continue
        found += [latency_finding(models[f["model"]], f, here_ms[f["model"]]) for f in alike]
    return found


def latency_finding(model, fact, here_ms):
    """A latency of this device against what was forecast and measured."""
    device = fact["device"]
    bounds = [fact["interval_ms"][1]] if fact["interval_ms"] else []
    bounds += [fact["measured_ms"] * MARGIN] if fact["measured_ms"] else []
    promised = ", ".join(
        f"{label} {fact[key]:.3f} ms"
        for label, key in (("forecast", "forecast_ms"), ("measured", "measured_ms"))
        if fact[key]
    )
    detail = (
        f"{here_ms:.3f} ms here; {promised or 'nothing promised'} on {device['name']} "
        f"({fact['host']}, batch {device['batch']}, {device['threads']} thread(s))"
    )
    return finding(model, "latency", here_ms <= max(bounds) if bounds else None, detail)


def spec_of(fact):
    """What a timing depends on besides the model."""
    keys = ("runtime", "provider", "precision", "threads", "batch")
    return {key: fact["device"][key] for key in keys}


def measure_ms(paths, spec):
    """Per model the median over rounds of each round's fastest hot run, by bench.py beside us."""
    with tempfile.TemporaryDirectory() as name:
        folder, items = Path(name), []
        for index, path in enumerate(paths):
            shutil.copyfile(path, folder / f"{index}{path.suffix}")
            if path.suffix == ".xml":  # OpenVINO's weights
                shutil.copyfile(path.with_suffix(".bin"), folder / f"{index}.bin")
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            items.append({"id": str(index), "file": f"{index}{path.suffix}", "sha256": digest})
        plan = {**TIMING, **spec, "reference": "0", "items": items}
        plan["time_budget_s"] = 5.0 * len(items)
        (folder / "plan.json").write_text(json.dumps(plan))
        bench = Path(__file__).resolve().with_name("bench.py")
        command = [sys.executable, bench, folder / "plan.json", "--out", folder / "results.jsonl"]
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
        if done.returncode != 0:
            said = [line for line in done.stderr.splitlines() if line[:1] != "{"]
            raise BundleError(f"not timed: {' '.join(said)[-300:]}")
        lines = [json.loads(line) for line in (folder / "results.jsonl").open()][1:]
    best_ns = [[] for _ in paths]
    for line in lines:
        for _, index, _, *hot_ns in line.get("turns", ()):
            best_ns[max(index, 0)].append(min(hot_ns))  # below 0: extra turns of the reference
    return [float(np.median(times)) / 1e6 for times in best_ns]
