"""Zero-cost proxies as features of a predictor that has few labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from hwnas.core.progress import silent
from hwnas.predictors.proxies import ListedProxy
from hwnas.studies.compare_predictors import Labels, measure, measure_values
from predictor_parts.cells import Cell, Cells
from predictor_parts.nasbench201 import zero_cost

__all__ = ["cells"]

SIZES, PREDICTORS = ("10",), ("gcn", "gp", "ridge")


def cells(data: Path, seeds: int, names: Sequence[str], sizes: Sequence[str]) -> Cells:
    """A predictor with and without the 13 proxies, and every proxy alone.

    Expected: with proxies, tau is higher than without them and than that of the best proxy.
    """
    for size in sizes or SIZES:
        key = {"test": "proxies", "size": size, "seeds": seeds}
        yield key | {"predictor": "proxies alone"}, partial(_alone, data, int(size), seeds)
        for name in names or PREDICTORS:
            for has_proxies in (False, True):
                run = partial(_with, data, int(size), seeds, name, has_proxies=has_proxies)
                yield key | {"predictor": name, "has_proxies": has_proxies}, run


def _labels(data: Path) -> tuple[Labels, list[str]]:
    """The cells with all proxies, and the names of the proxies."""
    half = zero_cost(data)
    columns = dict(half.columns)
    scores = columns.pop("accuracy")
    proxies = tuple(
        ListedProxy(half.space, half.codes, values, name=name) for name, values in columns.items()
    )
    return Labels(half.space, half.codes, scores, "accuracy", proxies=proxies), list(columns)


def _with(data: Path, n_fit: int, seeds: int, name: str, *, has_proxies: bool) -> Cell:
    labels, _ = _labels(data)
    labels = labels if has_proxies else replace(labels, proxies=())
    return measure(name, labels, n_fit=n_fit, n_seeds=seeds, progress=silent).row()


def _alone(data: Path, n_fit: int, seeds: int) -> Cell:
    """Mean tau of every proxy over the splits, the best first."""
    labels, names = _labels(data)
    taus: dict[str, float] = {}
    for name, proxy in zip(names, labels.proxies, strict=True):
        values = proxy(labels.codes)
        found = measure_values(values, labels, n_fit=n_fit, n_seeds=seeds)
        taus[name] = found.row()["kendall_tau_mean"]
    ranked = sorted(taus.items(), key=lambda item: -item[1])
    return {"kendall_tau_mean": ranked[0][1], "taus": dict(ranked)}
