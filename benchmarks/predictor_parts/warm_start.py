"""Warm start: labels of CIFAR-10 save labels of CIFAR-100 and of ImageNet16-120."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from hwnas.core.progress import silent
from hwnas.core.rng import rng
from hwnas.predictors.transfer import LabelSet
from hwnas.studies.compare_predictors import Labels, measure
from predictor_parts.cells import Cell, Cells
from predictor_parts.nasbench201 import accuracies

__all__ = ["cells", "equal_labels", "saved"]

SIZES, PREDICTORS = ("10", "20", "50", "100", "200", "400"), ("gcn",)
N_OTHERS = 400
SAME = ("target", "predictor", "seeds")
"""Cells that agree in these are points of one curve."""


def cells(data: Path, seeds: int, names: Sequence[str], sizes: Sequence[str]) -> Cells:
    """Both targets, with and without 400 labels of CIFAR-10."""
    for target in ("cifar100", "imagenet16"):
        for size in sizes or SIZES:
            for name in names or PREDICTORS:
                for n_others in (0, N_OTHERS):
                    key = {"test": "warm_start", "target": target, "size": size}
                    run = partial(_measured, data, target, int(size), seeds, name, n_others)
                    yield key | {"predictor": name, "others": n_others, "seeds": seeds}, run


def _measured(data: Path, target: str, n_fit: int, seeds: int, name: str, n_others: int) -> Cell:
    half = accuracies(data)
    rows = rng(0, "benchmarks/others").permutation(len(half.codes))[:n_others]
    cheap = LabelSet("cifar10", half.codes[rows], half.columns["cifar10"][rows])
    others = (cheap,) if n_others else ()
    labels = Labels(half.space, half.codes, half.columns[target], target, others)
    return measure(name, labels, n_fit=n_fit, n_seeds=seeds, progress=silent).row()


def equal_labels(tau: float, curve: Mapping[int, float]) -> float | None:
    """The smallest number of labels at which a curve (tau by number of labels) reaches `tau`.

    Between the points, tau is a line in log n. The result is None if the curve does not reach
    `tau`, and the first number of labels if it begins above it.
    """
    sizes = sorted(curve)
    for i, n in enumerate(sizes):
        if curve[n] >= tau:
            if i == 0:
                return float(n)
            before = sizes[i - 1]
            share = (tau - curve[before]) / (curve[n] - curve[before])
            return float(before ** (1 - share) * n**share)
    return None


def saved(rows: Sequence[Cell]) -> list[Cell]:
    """For every cell with other labels: how many labels of the target reach the same tau alone."""
    kept = [row for row in rows if row["test"] == "warm_start"]
    found = []
    for row in (one for one in kept if one["others"]):
        same = [one for one in kept if not one["others"] and all(one[k] == row[k] for k in SAME)]
        curve = {int(one["size"]): one["kendall_tau_mean"] for one in same}
        tau = row["kendall_tau_mean"]
        key = {name: row[name] for name in (*SAME, "size")}
        alone = {"tau_alone": curve.get(int(row["size"])), "equal_labels": equal_labels(tau, curve)}
        found.append(key | {"tau": tau} | alone)
    return found
