"""Transfer between runtimes, precisions and units of phones, on the networks of Mobile ML Bench.

These networks belong to no space of hwnas. A network is described by its number, MACs and bytes
(weights and activations) instead of operators; the prior of `hwnas.latency.transfer` is the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from accelerator_parts.reading import mobile_ml_bench

from hwnas.core.errors import UserError
from hwnas.core.rng import rng
from hwnas.core.stats import spearman
from hwnas.interfaces import FloatArray
from hwnas.latency.transfer import DevicePrior, choose_networks, device_prior, fit_device
from transfer_parts.estimating import best_source

__all__ = ["across_runtimes"]

CPU, SMALL, GPU, INT8 = "1large|float", "1small|float", "gpu|float", "1large|quant"
TASKS = {
    "runtime: TFLite to PyTorch Mobile, Pixel 4": ([f"tflite|pixel4|{CPU}"], f"torch|pixel4|{CPU}"),
    "runtime: TFLite to PyTorch Mobile, iPhone XS": (
        [f"tflite|iphonexs|{CPU}"],
        f"torch|iphonexs|{CPU}",
    ),
    "precision: float to int8, Pixel 4": ([f"tflite|pixel4|{CPU}"], f"tflite|pixel4|{INT8}"),
    "precision: float to int8, Galaxy S10": ([f"tflite|s10|{CPU}"], f"tflite|s10|{INT8}"),
    "precision: float to int8, with another phone in int8": (
        [f"tflite|pixel4|{CPU}", f"tflite|s10|{CPU}", f"tflite|s10|{INT8}"],
        f"tflite|pixel4|{INT8}",
    ),
    "unit: CPU to GPU, Pixel 4": ([f"tflite|pixel4|{CPU}"], f"tflite|pixel4|{GPU}"),
    "unit: two CPUs and a GPU to another GPU": (
        [f"tflite|pixel4|{CPU}", f"tflite|s10|{CPU}", f"tflite|s10|{GPU}"],
        f"tflite|pixel4|{GPU}",
    ),
    "phone: Pixel 4 and Galaxy S10 to iPhone XS": (
        [f"tflite|pixel4|{CPU}", f"tflite|s10|{CPU}"],
        f"tflite|iphonexs|{CPU}",
    ),
    "core: large to small, Pixel 4": ([f"tflite|pixel4|{CPU}"], f"tflite|pixel4|{SMALL}"),
}
"""Known columns, and the column that is estimated: runtime, phone, cores and precision."""

FOLDS = 5


def across_runtimes(folder: Path, n_timed: list[int], seeds: int) -> list[dict[str, Any]]:
    """Rank correlation and median error on the networks that were not timed, per task.

    `full`: the same model with four fifths of the networks timed, as a full table would be.
    `source`: the most similar known column, scaled to the timed networks. `macs`: a line on MACs.

    Raises:
        UserError: a file is missing, or has none of the columns of the tasks.
    """
    files = {"tflite": "tflite_real.csv", "torch": "torch_real.csv"}
    tables = {name: mobile_ml_bench(folder, file) for name, file in files.items()}
    columns = {
        f"{name}|{column}": values
        for name, table in tables.items()
        for column, values in table.items()
    }
    rows = []
    for task, (sources, target) in TASKS.items():
        wanted = [*sources, target]
        if missing := [name for name in wanted if name not in columns]:
            raise UserError("columns of a task are missing", found=", ".join(missing), where=folder)
        sizes = [columns["tflite|flops"], columns["tflite|bytes"]]
        names = sorted(set.intersection(*(set(c) for c in (*(columns[w] for w in wanted), *sizes))))
        known = np.array([[columns[source][name] for source in sources] for name in names])
        truth = np.array([columns[target][name] for name in names])
        size = np.array([[1.0, *(column[name] for column in sizes)] for name in names])
        counts = size / np.array([1.0, 1e9, 1e7])
        prior = device_prior(counts, known, sources, np.eye(3))
        found = {"task": task, "n_networks": len(names)}
        for n in n_timed:
            found |= _scores(prior, known, truth, counts[:, 1], n, seeds)
        rows.append(found | _full(prior, truth))
    return rows


def _scores(
    prior: DevicePrior, known: FloatArray, truth: FloatArray, macs: FloatArray, n: int, seeds: int
) -> dict[str, float]:
    """Means over seeds; a seed chooses the half of the networks from which the timed ones come."""
    scores: dict[str, list[tuple[float, float]]] = {}
    for seed in range(seeds):
        pool = rng(seed, "transfer/runtimes").choice(len(truth), len(truth) // 2, replace=False)
        timed = choose_networks(prior, n, pool)
        rest = np.setdiff1d(np.arange(len(truth)), timed)
        nearest = best_source(known, timed, truth[timed])
        guesses: dict[str, FloatArray] = {
            "ours": fit_device(prior, timed, truth[timed]).latency_ms,
            "source": nearest * np.median(truth[timed] / nearest[timed]),
            "macs": np.polyval(np.polyfit(macs[timed], truth[timed], 1), macs),
        }
        for name, guess in guesses.items():
            error = np.median(np.abs(guess[rest] / truth[rest] - 1))
            pair = spearman(guess[rest], truth[rest]), float(error)
            scores.setdefault(name, []).append(pair)
    return {
        f"{name}_{what}_{n}": float(value)
        for name, pairs in scores.items()
        for what, value in zip(("spearman", "error"), np.mean(pairs, axis=0), strict=True)
    }


def _full(prior: DevicePrior, truth: FloatArray) -> dict[str, float]:
    """Each fifth of the networks is estimated from the others."""
    fold = rng(0, "transfer/runtimes/folds").permutation(len(truth)) % FOLDS
    guess = np.empty(len(truth))
    for number in range(FOLDS):
        timed = np.flatnonzero(fold != number)
        found = fit_device(prior, timed, truth[timed]).latency_ms
        guess[fold == number] = found[fold == number]
    error = float(np.median(np.abs(guess / truth - 1)))
    return {"full_spearman": spearman(guess, truth), "full_error": error}
