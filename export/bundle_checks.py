"""Checks a bundle on this device, with the runtime that runs its models.

`predict` maps inputs [n, C, H, W] to logits [n, classes], float32. A finding is a dict with
`model`, `check`, `passed` (None: there is no reference value, or it cannot be checked here),
`judged` (False: this machine is too slow or too fast to judge) and `detail`.
"""

import numpy as np
from bundle_files import read_golden
from bundle_images import labelled_images, preprocess, read_samples

BATCH = 32  # images per batch
LEAST_CHANCE = 0.01  # a shortfall with a lower probability than this counts as real


def finding(model, check, passed, detail, judged=True):
    """A finding, see the module."""
    return {
        "model": model["path"],
        "check": check,
        "passed": passed,
        "judged": judged,
        "detail": detail,
    }


def show(found):
    """Prints one line per finding; returns the exit status: 0, 3 or 4 (see ort_run.py)."""
    words = {True: "ok", False: "FALLS SHORT", None: "--"}
    for line in found:
        word = words[line["passed"]] if line["judged"] else "NOT JUDGED"
        print(f"{line['model']}: {line['check']}: {word}: {line['detail']}")
    if any(line["passed"] is False for line in found):
        return 3
    return 0 if all(line["judged"] for line in found) else 4


# --- outputs of a model ---------------------------------------------------------------------------


def check_outputs(folder, manifest, model, predict, data=None):
    """Findings on a model: golden outputs, the bundle's samples, accuracy on the user's images."""
    found = [check_golden(folder, manifest, model, predict)]
    if manifest["samples"]:
        found.append(check_samples(folder, manifest, model, predict))
    if data is not None:
        found.append(check_accuracy(manifest, model, predict, data))
    return found


def check_golden(folder, manifest, model, predict):
    """Compares logits with those of torch, within the tolerance of the model, and classes."""
    inputs, expected = read_golden(folder, manifest)
    found = predict(inputs)
    if found.shape != expected.shape:
        detail = f"outputs {list(found.shape)}, expected {list(expected.shape)}"
        return finding(model, "golden outputs", False, detail)
    relative = float(np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-30))
    n_equal = int((found.argmax(1) == expected.argmax(1)).sum())
    tolerance, least = model["parity_tolerance"], model["min_agreement"]
    passed = bool(relative <= tolerance) and agrees(n_equal, len(found), least)  # NaN does not pass
    detail = (
        f"relative difference {relative:.1e} (allowed {tolerance:.0e}), "
        f"top-1 agreement {n_equal} of {len(found)} (promised {least:.1%})"
    )
    return finding(model, "golden outputs", passed, detail)


def check_samples(folder, manifest, model, predict):
    """Compares the predictions for the bundle's images with those of torch, file by file."""
    x, labels, predicted = read_samples(folder, manifest)
    found = predict(x).argmax(1)
    n_equal, n_right = int((found == predicted).sum()), int((found == labels).sum())
    detail = (
        f"{n_equal} of {len(x)} classified as by torch, "
        f"{n_right} rightly (torch {int((predicted == labels).sum())})"
    )
    return finding(model, "samples", agrees(n_equal, len(x), model["min_agreement"]), detail)


def check_accuracy(manifest, model, predict, data):
    """Top-1 on labelled images of the user, compared with the manifest."""
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
    """Whether n_equal of n images are consistent with an agreement of at least `least`.

    Binomial test: one wrong image of 16 is consistent with 98 %.
    """
    if n_equal == n or least in (0, 1):
        return n_equal >= n * least
    return binomial_tail(n - n_equal, n, 1 - least) >= LEAST_CHANCE


def binomial_tail(k, n, p):
    """Probability of k or more out of n events with probability p, 0 < p < 1."""
    logs = log_factorials(n)
    i = np.arange(k, n + 1)
    terms = logs[n] - logs[i] - logs[n - i] + i * np.log(p) + (n - i) * np.log1p(-p)
    return float(np.exp(terms).sum())


def chance_of_fewer(right, n, promised_right, promised_n):
    """Probability of so few right answers for two equally good sets (Fisher's exact test)."""
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
