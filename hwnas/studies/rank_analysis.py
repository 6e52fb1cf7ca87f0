"""Analyses how reliable a ranking of archs is (How Does Supernet Help, 2010.08219)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hwnas.analysis.advice import advice, safe_to_prune
from hwnas.analysis.bias import BiasReport, bias_report
from hwnas.analysis.noise import NoiseCeiling, noise_ceiling
from hwnas.analysis.pruning import Pruning, prune_space
from hwnas.analysis.ranks import MIN_ARCHS, RankReport, rank_report
from hwnas.core.command import command_line
from hwnas.core.errors import CheckFailed, UserError
from hwnas.core.metrics import MetricKey
from hwnas.core.records import dump
from hwnas.core.store import write_text
from hwnas.core.yaml_data import yaml_text
from hwnas.interfaces import CostMetric, FloatArray
from hwnas.latency.estimator import TableEstimator
from hwnas.latency.shipped import latency_table
from hwnas.pipeline.costs import prices
from hwnas.pipeline.evaluators import scores_of
from hwnas.pipeline.predictor import held_out
from hwnas.pipeline.project import Project
from hwnas.predictors.open_records import Source, open_records
from hwnas.predictors.readers.hwnas import read_labels
from hwnas.predictors.records import distinct
from hwnas.spaces.arch import Arch
from hwnas.spaces.cost import cost
from hwnas.spaces.space import Codes, SearchSpace
from hwnas.studies.compare_predictors import COSTS

__all__ = ["Analysis", "analyze_records", "analyze_run", "prune", "write_pruned"]


@dataclass(frozen=True)
class Analysis:
    """A ranking compared with a truth: rank agreement, bias per choice, and conclusions in words.

    `ceiling`: agreement of repeated measurements of the truth, if there are any.
    """

    ranking: str
    truth: str
    ranks: RankReport
    bias: BiasReport
    ceiling: NoiseCeiling | None
    verdict: tuple[str, ...]


@dataclass(frozen=True)
class _Pair:
    """A ranking and the truth of the same archs.

    repeats: repeated measurements of the truth, [n, r].
    latencies: latency of any archs, by metric key.
    """

    space: SearchSpace
    codes: Codes
    scores: FloatArray
    truth: FloatArray
    ranking: str
    truth_name: str
    repeats: FloatArray | None = None
    latencies: Mapping[str, CostMetric] = field(default_factory=dict)

    def analysis(self, seed: int) -> Analysis:
        ranks = rank_report(self.scores, self.truth, seed=seed)
        bias = bias_report(
            self.space,
            self.codes,
            self.scores,
            self.truth,
            latencies={key: metric(self.codes) for key, metric in self.latencies.items()},
        )
        ceiling = None if self.repeats is None else noise_ceiling(self.repeats)
        sentences = advice(ranks, bias)
        if ceiling is not None:
            sentences = (*sentences, _ceiling_in_words(ceiling))
        return Analysis(self.ranking, self.truth_name, ranks, bias, ceiling, sentences)


def analyze_run(
    project: Project, ranking: str, truths: Sequence[Path] = ()
) -> tuple[Analysis, _Pair]:
    """Compares a ranking of the run with a more accurate truth for the same archs.

    ranking: `predictor`, `supernet`, `macs` or `params`.
    truths: labels files of the same space, for example one per training seed. The truth is their
        mean over the archs that all files and the run contain. Default for the predictor: the
        labels that it predicts; for the supernet: labels of archs trained stand-alone; else: the
        labels of the supernet.

    Raises:
        UserError: the supernet would be compared with itself, the ranking is unknown, or too few
            archs are in all files.
    """
    if ranking == "supernet" and not truths:
        truths = [_trained_alone(project)]
    if ranking == "predictor":
        evaluations, rows = held_out(project)
    else:
        evaluations = project.files.read_labels()
        rows = np.arange(len(evaluations))
    codes, known = project.space.codes([e.arch for e in evaluations]), scores_of(evaluations)
    if ranking == "predictor":
        scores = np.asarray(project.files.predictor_report.read().predicted, dtype=np.float64)
    elif ranking == "supernet":
        scores = known
    else:
        scores = _costs(project.space, codes, ranking, ("predictor", "supernet"))
    reference, name, repeats = known[rows], f"{evaluations[0].source} labels", None
    if truths:
        better = [_by_arch(project.space, path) for path in truths]
        both = [i for i, r in enumerate(rows) if all(evaluations[r].arch in t for t in better)]
        repeats = np.array([[t[evaluations[rows[i]].arch] for t in better] for i in both])
        reference = repeats.reshape(len(both), len(better)).mean(axis=1)
        scores, rows, name = scores[both], rows[both], ", ".join(map(str, truths))
    _require_archs(len(reference), project, ranking, truths)
    pair = _Pair(
        project.space,
        codes[rows],
        scores,
        reference,
        ranking,
        name,
        repeats if len(truths) > 1 else None,
        {
            key: price
            for key, price in prices(project).items()
            if MetricKey.parse(key).metric == "latency_ms"
        },
    )
    return pair.analysis(project.config.seed), pair


def analyze_records(
    path: Path,
    ranking: str,
    *,
    target: str | None = None,
    tables: Sequence[str] = (),
    seed: int = 0,
    **opening: Any,
) -> tuple[Analysis, _Pair]:
    """Compares a ranking of recorded archs with their recorded accuracy.

    ranking: `macs`, `params`, or a column of the file.
    tables: latency tables, by name or file, for the bias towards slow archs.
    opening: arguments of `open_records`.

    Raises:
        UserError: the file cannot be read, the ranking is unknown, or too few archs have both
            values.
    """
    source = open_records(path, **opening)
    truth = source.records(target)
    columns = source.table.columns
    codes, reference = truth.codes, truth.scores
    if ranking in columns and ranking not in (*COSTS, truth.target):
        known, values, _ = distinct(source.table, ranking, where=path)
        score_of = dict(zip(truth.space.keys(known), values.tolist(), strict=True))
        keys = truth.space.keys(codes)
        rows = [row for row, key in enumerate(keys) if key in score_of]
        codes, reference = codes[rows], reference[rows]
        scores = np.array([score_of[keys[row]] for row in rows])
    else:
        scores = _costs(truth.space, codes, ranking, tuple(set(columns) - {truth.target}))
    found = [latency_table(table) for table in tables]
    pair = _Pair(
        truth.space,
        codes,
        scores,
        reference,
        ranking,
        truth.target,
        _repeats(source, truth.target),
        {
            MetricKey("latency_ms", one.device.name): TableEstimator(one, truth.space).latency_ms
            for one in found
        },
    )
    return pair.analysis(seed), pair


def _require_archs(n: int, project: Project, ranking: str, truths: Sequence[Path]) -> None:
    """Rejects a run with too few archs that have both a ranking and a truth."""
    if n >= MIN_ARCHS:
        return
    known = project.config.label.n_archs
    kind = "held-out labels" if ranking == "predictor" else "labels"
    enough = f"label.n_archs={_at_least(n, known)}"
    label = command_line("label", project.run.root, "--set", enough)
    raise UserError(
        "too few archs to tell how reliable the ranking is",
        expected=f"at least {MIN_ARCHS} {kind}" + " that all files have" * bool(truths),
        found=f"{n} of {known} labels" if n < known else f"{n} labels",
        where=project.run.root,
        fix=f"label more archs, e.g. {label}",
    )


def _at_least(n: int, n_labels: int) -> int:
    """Number of labels, a multiple of 10, for `MIN_ARCHS` usable ones; now n of `n_labels` are."""
    return math.ceil(n_labels * MIN_ARCHS / max(n, 1) / 10) * 10


def prune(analysis: Analysis, pair: _Pair, fraction: float | None) -> Pruning:
    """Drops values of choices whose archs are rarely well-scored; returns the smaller space.

    fraction: share of the archs to remove; None: the largest share that is safe according to the
        analysis.

    Raises:
        CheckFailed: `fraction` is None, and no pruning is safe.
    """
    if fraction is None:
        safe = safe_to_prune(analysis.ranks)
        if safe is None:
            raise CheckFailed(
                "the ranking is not reliable enough for pruning",
                found="; ".join(analysis.verdict[:2]),
                fix="use a better ranking, or set the fraction (--fraction, --prune-fraction)",
            )
        fraction = safe.pruned_fraction
    return prune_space(
        pair.space, pair.codes, pair.scores, pruned_fraction=fraction, truth=pair.truth
    )


def write_pruned(path: Path, pruning: Pruning) -> None:
    """Writes a YAML file with the section `restrict:` for an experiment."""
    section = {name: list(values) for name, values in dump(pruning)["restrict"].items()}
    head = (
        f"# Keeps {pruning.kept_of_well_scored:.1%} of the well-scored archs in a space of "
        f"{pruning.size_after:,} archs instead of {pruning.size_before:,}.\n"
    )
    write_text(path, head + yaml_text({"restrict": section}))


def _costs(space: SearchSpace, codes: Codes, ranking: str, others: tuple[str, ...]) -> FloatArray:
    metric = next((metric for metric in COSTS if metric == ranking), None)
    if metric is None:
        known = ", ".join((*COSTS, *sorted(others)))
        raise UserError(
            f"unknown ranking {ranking!r}", expected=f"one of {known}", where="--ranking"
        )
    return cost(space, codes, metric).astype(np.float64)


def _trained_alone(project: Project) -> Path:
    path = project.files.labels("trained")
    if not path.exists():
        raise UserError(
            "there are no more accurate labels to compare the supernet's labels with",
            expected="labels of archs trained stand-alone",
            where=path,
            fix=command_line("label", project.run.root, "--source", "trained", "--n", "20")
            + ", or --truth FILE, or another --ranking",
        )
    return path


def _by_arch(space: SearchSpace, path: Path) -> dict[Arch, float]:
    evaluations = read_labels(path)
    for evaluation in evaluations:
        space.check(evaluation.arch)
    return dict(zip((e.arch for e in evaluations), scores_of(evaluations).tolist(), strict=True))


def _repeats(source: Source, target: str) -> FloatArray | None:
    """Repeated values [n, r] of the archs measured most often; None if there are too few."""
    repeats = list(distinct(source.table, target, where=source.path)[2].values())
    n_repeats = max(map(len, repeats), default=0)
    often = [values for values in repeats if len(values) == n_repeats]
    return np.array(often) if len(often) >= MIN_ARCHS else None


def _ceiling_in_words(ceiling: NoiseCeiling) -> str:
    return (
        f"Noise ceiling: repeats of the truth agree at Kendall tau {ceiling.kendall_tau:.2f}, at "
        f"{ceiling.kendall_tau_top:.2f} within its top 10 % ({ceiling.n} archs measured "
        f"{ceiling.n_repeats} times)."
    )
