"""Compares predictors on equal labels: fit on N, rank all others, over several seeds."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwnas.core.config import build_model
from hwnas.core.errors import UserError
from hwnas.core.progress import Progress
from hwnas.core.rng import rng
from hwnas.core.stats import Z90, kendall_tau
from hwnas.interfaces import AccuracyPredictor, FloatArray, PredictorContext, Proxy
from hwnas.pipeline.evaluators import scores_of
from hwnas.pipeline.project import Project
from hwnas.predictors import REGISTRY as PREDICTORS
from hwnas.predictors.open_records import open_records
from hwnas.predictors.top import TopQuality, top_quality
from hwnas.predictors.transfer import LabelSet, TransferPredictor
from hwnas.spaces.cost import AnalyticMetric, cost
from hwnas.spaces.space import Codes, SearchSpace

__all__ = [
    "COPIES",
    "COSTS",
    "Labels",
    "Outcome",
    "compare",
    "labels_of_file",
    "labels_of_run",
    "measure",
    "measure_cost",
    "measure_values",
]

COSTS: tuple[AnalyticMetric, ...] = ("macs", "params")
"""Costs that rank archs without any label."""

COPIES = ("distilled",)
"""Predictors that imitate another predictor, so they are not a baseline for it."""


MIN_FIT = 4  # labels


@dataclass(frozen=True)
class Labels:
    """Distinct archs with a score each, for comparing predictors.

    others: labels from other sources that predictors may learn from.
    proxies: further features of the archs.
    """

    space: SearchSpace
    codes: Codes
    scores: FloatArray
    target: str
    others: tuple[LabelSet, ...] = ()
    proxies: tuple[Proxy, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """Results of one predictor over the splits of all seeds.

    coverage: share of the true scores that are in its 90 % intervals.
    top: how well the best of the archs that were not used for fitting are found.
    fit_cpu_s: processor time, because other processes of the machine affect it least.
    """

    kendall_tau: list[float] = field(default_factory=list)
    top: list[TopQuality] = field(default_factory=list)
    coverage: list[float] = field(default_factory=list)
    fit_cpu_s: list[float] = field(default_factory=list)

    def add_ranking(self, scores: FloatArray, truth: FloatArray) -> None:
        """Adds the results of one split: scores [n] of the archs to rank, and their truth [n]."""
        self.kendall_tau.append(kendall_tau(scores, truth))
        self.top.append(top_quality(scores, truth))

    def row(self) -> dict[str, float]:
        """Means over seeds, and the spread of tau."""
        found = {
            "kendall_tau_mean": float(np.mean(self.kendall_tau)),
            "kendall_tau_std": float(np.std(self.kendall_tau)),
        }
        rows = [one.row() for one in self.top]
        found |= {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
        if self.coverage:
            found["coverage"] = float(np.mean(self.coverage))
            found["fit_cpu_s"] = float(np.mean(self.fit_cpu_s))
        return found


def labels_of_file(
    path: Path,
    *,
    reader: str | None = None,
    target: str | None = None,
    also: Sequence[str] = (),
    proxies: Sequence[str] = (),
    space: str | None = None,
    settings: Mapping[str, Any] | None = None,
    num_classes: int | None = None,
) -> Labels:
    """Labels from one column of a file; `also` and `proxies` name other columns.

    Raises:
        UserError: see `open_records` and `Source.records`.
    """
    source = open_records(
        path, reader=reader, space=space, settings=settings, num_classes=num_classes
    )
    found = source.records(target)
    for option, names in (("--also", also), ("--proxy", proxies)):
        if found.target in names:
            raise UserError(
                f"the target {found.target} is also an input",
                expected="columns other than the target",
                found=f"{found.target} in {option}",
                where=path,
                fix=f"leave it out of {option}, or select another --target",
            )
    others = [source.records(name) for name in also]
    return Labels(
        found.space,
        found.codes,
        found.scores,
        found.target,
        tuple(LabelSet(other.target, other.codes, other.scores) for other in others),
        tuple(source.proxy(name) for name in proxies),
    )


def labels_of_run(project: Project) -> Labels:
    """The labels of stage `label`: the negative log of the supernet's validation loss."""
    evaluations = project.files.read_labels()
    codes = project.space.codes([e.arch for e in evaluations])
    return Labels(project.space, codes, scores_of(evaluations), "-log(val_loss)")


def compare(
    labels: Labels,
    name: str,
    *,
    n_fit: int,
    n_seeds: int,
    has_baselines: bool = True,
    progress: Progress,
) -> list[dict[str, Any]]:
    """One row for the named predictor, for every other installed predictor, and for every cost.

    Raises:
        UserError: fewer archs than requested.
    """
    names = [name]
    if has_baselines:
        installed = [n for n in PREDICTORS.names if not PREDICTORS.describe(n).missing]
        names += [other for other in installed if other != name and other not in COPIES]
    rows: list[dict[str, Any]] = []
    for done, current in enumerate(names):
        report = _Part(progress, current, done, len(names))
        outcome = measure(current, labels, n_fit=n_fit, n_seeds=n_seeds, progress=report)
        rows.append({"predictor": current, **outcome.row()})
    if has_baselines:
        for metric in COSTS:
            outcome = measure_cost(metric, labels, n_fit=n_fit, n_seeds=n_seeds)
            rows.append({"predictor": metric, **outcome.row()})
    return rows


@dataclass(frozen=True)
class _Part:
    """Progress of one of several equal parts."""

    whole: Progress
    name: str
    done: int
    of: int

    def __call__(self, done: int, total: int, note: str = "") -> None:
        self.whole(self.done * total + done, self.of * total, f"{self.name} {note}")


def measure(
    name: str,
    labels: Labels,
    *,
    n_fit: int,
    n_seeds: int,
    progress: Progress,
    settings: Mapping[str, Any] | None = None,
) -> Outcome:
    """Fits the named predictor on `n_fit` random archs and ranks all others, once per seed.

    settings: settings of the predictor that differ from the defaults.

    Raises:
        UserError: unknown predictor, or fewer archs than requested.
    """
    outcome = Outcome()
    for seed in range(n_seeds):
        fit_rows, rest = _split(len(labels.codes), n_fit, seed)
        predictor = _build(name, labels, seed, settings or {})
        begin = time.process_time()
        predictor.fit(labels.codes[fit_rows], labels.scores[fit_rows])
        outcome.fit_cpu_s.append(time.process_time() - begin)
        mean, std = predictor.predict(labels.codes[rest])
        truth = labels.scores[rest]
        outcome.add_ranking(mean, truth)
        outcome.coverage.append(float((np.abs(mean - truth) <= Z90 * std).mean()))
        progress(seed + 1, n_seeds, f"tau {outcome.kendall_tau[-1]:.3f}")
    return outcome


def measure_cost(metric: AnalyticMetric, labels: Labels, *, n_fit: int, n_seeds: int) -> Outcome:
    """Ranks the same archs as `measure` by a cost, without learning."""
    values = cost(labels.space, labels.codes, metric).astype(np.float64)
    return measure_values(values, labels, n_fit=n_fit, n_seeds=n_seeds)


def measure_values(values: FloatArray, labels: Labels, *, n_fit: int, n_seeds: int) -> Outcome:
    """Ranks the same archs as `measure` by given values [n] of all archs, without learning."""
    outcome = Outcome()
    for seed in range(n_seeds):
        _, rest = _split(len(labels.codes), n_fit, seed)
        outcome.add_ranking(values[rest], labels.scores[rest])
    return outcome


def _build(name: str, labels: Labels, seed: int, settings: Mapping[str, Any]) -> AccuracyPredictor:
    """The named predictor with its default settings, and with the other labels."""
    module = PREDICTORS.load(name)

    def build(proxies: Sequence[Proxy]) -> AccuracyPredictor:
        context = PredictorContext(labels.space, seed, (*labels.proxies, *proxies))
        return module.build(build_model(module.Config, dict(settings), where=name), context)

    return TransferPredictor(build, labels.others, seed=seed) if labels.others else build(())


def _split(n: int, n_fit: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    if n < n_fit + 2:
        raise UserError(
            "fewer labelled archs than requested",
            expected=f"at least {n_fit + 2} archs: {n_fit} to fit on and 2 to rank",
            found=f"{n} archs",
            fix=(f"lower --train-size to at most {n - 2}, or " if n >= MIN_FIT + 2 else "")
            + "label more archs",
        )
    order = rng(seed, "predictor/compare").permutation(n)
    return order[:n_fit], order[n_fit:]
