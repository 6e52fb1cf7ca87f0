"""Checks a bundle on this device, with the runtime that runs its models.

`predict` maps inputs [n, C, H, W] to logits [n, classes], float32. A finding is a dict with
`model`, `check`, `passed` (None: there is no reference value, or it cannot be checked here),
`judged` (False: this machine is too slow or too fast to judge) and `detail`.
"""

import sys
import time

import numpy as np
from bundle_files import BundleError, read_golden
from bundle_images import labelled_images, preprocess, read_samples
from bundle_statistics import binomial_tail, chance_of_fewer, standard_error

BATCH = 32  # images per batch
SHOWN = 3  # images that cannot be read
PERIOD_S = 5.0  # of progress where there is no terminal
TIE = 2e-5  # relative to the largest logit; rounding can swap such classes
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
    scale, rounding = max(np.abs(expected).max(), 1e-30), model["torch_rounding"]
    relative = float(np.abs(found - expected).max() / scale)
    named = np.take_along_axis(expected, found.argmax(1)[:, None], axis=1)[:, 0]
    tie = max(TIE, 2 * min(rounding or 0.0, model["parity_tolerance"])) * scale
    n_equal = int((named >= expected.max(1) - tie).sum())
    tolerance, least = model["parity_tolerance"], model["min_agreement"]
    passed = bool(relative <= tolerance) and agrees(n_equal, len(found), least)  # NaN does not pass
    why = "" if rounding is None else f", because torch's own rounding is {rounding:.0e}"
    detail = (
        f"relative difference {relative:.1e} (allowed {tolerance:.0e}{why}), "
        f"top-1 agreement {n_equal} of {len(found)} (promised {least:.1%})"
    )
    return finding(model, "golden outputs", passed, detail)


def check_samples(folder, manifest, model, predict):
    """Compares the predictions for the bundle's images with those of torch, file by file."""
    x, labels, predicted = read_samples(folder, manifest)
    found = predict(x).argmax(1)
    n_equal, n_right = int((found == predicted).sum()), int((found == labels).sum())
    detail = (
        f"{n_equal} of {len(x)} in the same class as in torch, "
        f"{n_right} correct (torch: {int((predicted == labels).sum())})"
    )
    return finding(model, "samples", agrees(n_equal, len(x), model["min_agreement"]), detail)


def check_accuracy(manifest, model, predict, data):
    """Compares top-1 on labelled images of the user with the manifest, class by class.

    data: path of the images, or the path and the number of images to use, balanced over the
    classes. Unreadable images are left out and named.
    """
    names = manifest["input"]["class_names"]
    path, limit = data if isinstance(data, tuple) else (data, None)
    read, labels = labelled_images(path, names)
    chosen = np.arange(len(labels)) if limit is None else balanced(labels, limit)
    n_right, n_seen = np.zeros((2, len(names)), dtype=int)
    broken, progress = [], Progress("accuracy", len(chosen))
    for start in range(0, len(chosen), BATCH):
        part = chosen[start : start + BATCH]
        x, classes = readable(read, labels, part, manifest["input"], broken)
        if x:
            np.add.at(n_seen, classes, 1)
            np.add.at(n_right, classes, predict(np.stack(x)).argmax(1) == classes)
        progress(start + len(part))
    if len(broken) == len(chosen):
        raise BundleError(f"{path}: none of {len(chosen)} images can be read: {broken[0]}")
    n, top1 = int(n_seen.sum()), n_right.sum() / n_seen.sum()
    detail = f"{top1:.2%} \u00b1 {standard_error(top1, n):.2%} of {n} images here"
    passed, judged, promise = compared(manifest, model, n_right, n_seen)
    detail += f"; {promise}"
    if broken:
        named = "; ".join(broken[:SHOWN]) + "; ..." * (len(broken) > SHOWN)
        detail += f"; {len(broken)} left out that cannot be read: {named}"
    return finding(model, "accuracy", passed, detail, judged=judged)


def balanced(labels, n):
    """Sorted indices of at most n images, with numbers per class as equal as possible.

    The choice within a class is random, but the same in every call.
    """
    order = np.random.RandomState(0).permutation(len(labels))
    rank = np.empty(len(labels), dtype=int)
    for label in np.unique(labels):
        own = order[labels[order] == label]
        rank[own] = np.arange(len(own))
    return np.sort(np.lexsort((labels, rank))[:n])


def readable(read, labels, part, spec, broken):
    """Inputs and classes of some images; appends the reason for each unreadable one to `broken`."""
    x, classes = [], []
    for index in part:
        try:
            x.append(preprocess(read(index), spec))
        except BundleError as error:
            broken.append(str(error))
        else:
            classes.append(labels[index])
    return x, np.array(classes, dtype=int)


def compared(manifest, model, n_right, n_seen):
    """Compares the correct answers per class, of the images seen per class, with the manifest.

    Returns whether the check passed, whether it could be judged, and the expected accuracy in
    words.
    """
    facts = [fact for fact in manifest["accuracy"] if fact["model"] == model["path"]]
    facts = [fact for fact in facts if fact["split"] == "test"] or facts
    if not facts:
        return None, True, "no accuracy in the manifest"
    fact, n_absent = facts[0], int((n_seen == 0).sum())
    known = f"{fact['n_images']} images of {fact['dataset']}"
    if not fact["classes"]:
        promise = f"promised {fact['top1']:.2%} ({known})"
        if n_absent:
            promise += (
                f", but not class by class, and {n_absent} of {len(n_seen)} classes are absent"
            )
            return None, False, promise
        promised = round(fact["top1"] * fact["n_images"]), fact["n_images"]
        chance = chance_of_fewer(n_right.sum(), n_seen.sum(), *promised)
        return chance >= LEAST_CHANCE, True, promise
    right, n = np.array(fact["classes"]).T
    both = (n > 0) & (n_seen > 0)
    if not both.any():
        return None, False, f"of none of these classes an accuracy is promised ({known})"
    share = float((n_seen[both] * right[both] / n[both]).sum() / n_seen[both].sum())
    promise = f"promised {share:.2%} for these classes ({known})"
    if n_absent:
        promise += f"; {n_absent} of {len(n_seen)} classes are absent here"
    if (lone := int((n_seen[~both & (n_seen > 0)]).sum())) > 0:
        promise += f"; {lone} images are of classes without a promise"
    chance = chance_of_fewer(n_right[both], n_seen[both], right[both], n[both])
    return chance >= LEAST_CHANCE, True, promise


class Progress:
    """Shows the progress of a long check on stderr."""

    def __init__(self, what, total):
        self._what, self._total, self._begin = what, total, time.monotonic()
        self._shown, self._next = False, self._begin + 1.0

    def __call__(self, done):
        """Reports that `done` images are finished."""
        now, is_terminal = time.monotonic(), sys.stderr.isatty()
        is_last = done == self._total and self._shown and is_terminal
        if now < self._next and not is_last:
            return
        self._shown, self._next = True, now + (1.0 if is_terminal else PERIOD_S)
        left = (now - self._begin) * (self._total / done - 1)
        text = f"{self._what}: {done} of {self._total} images, {left:.0f} s left"
        end = "" if is_terminal and done < self._total else "\n"
        print(f"\r{text}   " if is_terminal else text, end=end, file=sys.stderr, flush=True)


def agrees(n_equal, n, least):
    """Whether n_equal of n images are consistent with an agreement of at least `least`.

    Binomial test: one wrong image of 16 is consistent with 98 %.
    """
    if n_equal == n or least in (0, 1):
        return n_equal >= n * least
    return binomial_tail(n - n_equal, n, 1 - least) >= LEAST_CHANCE
