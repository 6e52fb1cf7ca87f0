"""Stage `search`: the controller on every target, and random search beside it at equal budgets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from hwnas.controller.constraints import resolve
from hwnas.controller.controller import Predict, Rescoring, run_search
from hwnas.controller.remeasure import close_on_devices
from hwnas.controller.result import SearchResult
from hwnas.core.progress import Progress, silent
from hwnas.core.store import file_hash
from hwnas.interfaces import CostMetric, Evaluation, FloatArray, SearcherContext
from hwnas.measure.profile import time_networks
from hwnas.pipeline.artifacts import SearchFiles
from hwnas.pipeline.costs import prices
from hwnas.pipeline.engine import Stage
from hwnas.pipeline.evaluators import (
    JournaledEvaluator,
    TabularRescoring,
    evaluator,
    score_all,
    scores_of,
)
from hwnas.pipeline.predictor import blend_for, build_predictor, load_predictor
from hwnas.pipeline.project import Project, task
from hwnas.pipeline.winners import constraints_for, search_files, targets
from hwnas.predictors.open_records import open_records
from hwnas.searchers import REGISTRY as SEARCHERS
from hwnas.searchers.random import Config as RandomConfig
from hwnas.spaces.arch import Arch
from hwnas.spaces.space import Codes

__all__ = ["assist", "evaluate_together", "search", "stage"]

EVALUATE, FINISHED = "evaluate", "finished"  # what rank 0 tells the others
N_ANCHORS = 6  # networks of the table that are timed again beside the best archs
MAX_RETIMING_ROUNDS = 2000


def stage(project: Project) -> Stage:
    """Searches on every target, with random search beside."""
    files, section = project.files, project.config.search
    name, main = f"search/{section.name}", files.main_search
    records = section.evaluator.records
    return Stage(
        name=name,
        command=f"hwnas search {project.run.root}",
        needs=_needs(project),
        settings=[
            project.config.seed,
            project.space_settings,
            project.settled["data"],
            project.settled["label"]["calibration"],
            project.settled["search"],
            file_hash(records) if records is not None and records.is_file() else None,
        ],
        owns=tuple(map(files.pattern, main.owned)),
        outputs=(files.pattern(main.result.path), files.pattern(files.baseline.result.path)),
        run=task(project, name, search, together=True),
        cost=f"2 x {section.n_predictions} predictions"
        f" and {section.n_evaluations} subnet evaluations",
        reads={} if records is None else {"search.evaluator.records": records},
    )


def _needs(project: Project) -> tuple[str, ...]:
    """Every device's table, supernet and predictor; with records only the limited devices'."""
    section = project.config.search
    if section.evaluator.records is None:
        return (*(f"profile/{device}" for device in project.devices), "train", "predictor")
    limited = {c.device for c in section.constraints if c.metric.startswith("latency")}
    return tuple(f"profile/{device}" for device in project.devices if device in limited)


def search(project: Project, progress: Progress) -> None:
    """Run the configured searcher, then random search, with equal predictions and evaluations.

    With `per_device`, the searcher runs once for every device. Rank 0 searches, all evaluate.
    """
    if not project.ranks.leads:
        assist(project, lambda: evaluator(project))
        return
    config = project.config.search
    for device in targets(project):
        _search_one(project, config.searcher, search_files(project, device), progress, device)
    first = project.first_device if config.per_device else None
    _search_one(project, RandomConfig(), project.files.baseline, progress, first)
    project.ranks.tell(FINISHED)


def evaluate_together(
    project: Project, scorer: JournaledEvaluator, archs: list[Arch]
) -> list[Evaluation]:
    """Evaluations of all archs; the unknown ones are shared among the ranks, which `assist`."""
    if all(map(scorer.is_known, archs)):
        return [scorer.evaluate(arch) for arch in archs]
    project.ranks.tell(EVALUATE)
    return score_all(project, scorer, archs, silent)


def assist(project: Project, build: Callable[[], JournaledEvaluator]) -> None:
    """Other ranks: take part in the evaluations of rank 0's search until it is finished."""
    scorer = None
    while project.ranks.hear() == EVALUATE:
        scorer = scorer or build()
        score_all(project, scorer, [], silent)


def _search_one(
    project: Project,
    searcher_config: Any,
    files: SearchFiles,
    progress: Progress,
    device: str | None,
) -> None:
    section, seed = project.config.search, project.config.seed
    module = SEARCHERS.load(searcher_config.name)
    predict, rescoring = _scoring(project)
    metrics = prices(project)
    # a limit stays what it is while closing corrects the prices that fractions refer to
    limits = resolve(constraints_for(project, device), metrics, project.space)
    constraints = tuple(
        replace(limit.constraint, max=limit.max, max_fraction_of_largest=None) for limit in limits
    )
    config = section.model_copy(update={"constraints": constraints})

    def run(latencies: Mapping[str, CostMetric], number: int) -> SearchResult:
        known = {f"latency_ms@{name}": metric for name, metric in latencies.items()}
        return run_search(
            project.space,
            module.build(searcher_config, SearcherContext(project.space, seed)),
            predict=predict,
            metrics={**metrics, **known},
            config=config,
            seed=seed,
            folder=files.round(number),
            rescoring=rescoring,
            progress=progress,
        )

    limited = [c.device for c in config.constraints if c.metric == "latency_ms"]
    is_baseline = files == project.files.baseline
    if section.closing.max_rounds and limited and not is_baseline:
        result, closing = close_on_devices(
            project.space,
            {name: project.estimator(name).table for name in limited},
            run,
            lambda name, codes, number: _retime(project, files, name, codes, number),
            n_retimed=section.closing.n_retimed,
            max_rounds=section.closing.max_rounds,
        )
        files.closing.write(closing)
        progress(config.n_predictions, config.n_predictions, closing.reason)
    else:
        result = run({}, 0)
    files.write_fronts(result.fronts)
    files.result.write(result)


def _scoring(project: Project) -> tuple[Predict | None, Rescoring]:
    """Forecast and evaluations: predictor and supernet, or records that the predictor learns."""
    chosen = project.config.search.evaluator
    if chosen.records is not None:
        source = open_records(
            chosen.records,
            reader=chosen.reader,
            space=project.config.space.name,
            settings=project.config.space.model_dump(mode="json", exclude={"name"}),
            num_classes=project.space.macro.num_classes,
        )
        records = source.records(chosen.target)
        return None, TabularRescoring(records, project.space, lambda: build_predictor(project))
    return load_predictor(project).predict, _SupernetRescoring(project)


class _SupernetRescoring(Rescoring):
    """Evaluations with the supernet's weights by all ranks, blended with the forecast."""

    def __init__(self, project: Project) -> None:
        self._project, self._evaluator = project, evaluator(project)
        self._blend, self.at_once = blend_for(project), project.ranks.size

    def evaluate(self, archs: list[Arch]) -> list[Evaluation]:
        """Journaled evaluations on the validation split."""
        return evaluate_together(self._project, self._evaluator, archs)

    def label(self, evaluation: Evaluation) -> float:
        """Minus the log of the validation loss."""
        return float(scores_of([evaluation])[0])

    def blend(self, mean: FloatArray, std: FloatArray, label: FloatArray) -> FloatArray:
        """As held-out archs decided."""
        return self._blend(mean, std, label)


def _retime(
    project: Project, files: SearchFiles, device: str, codes: Codes, number: int
) -> FloatArray:
    """Milliseconds of archs, timed as whole networks, at the speed the table was measured at.

    Some of the table's own networks take turns with them and say how much slower the machine is.
    """
    space = replace(project.space, allowed=())  # anchors may have been pruned away since
    correction = project.estimator(device).table.corrections.get(space.id)
    nets = (
        []
        if correction is None
        else sorted(correction.validation.nets, key=lambda net: net.measured_ms)
    )
    spread = np.linspace(0, len(nets) - 1, min(N_ANCHORS, len(nets))).round().astype(int)
    anchors = [nets[position] for position in spread]
    config = project.config.profile
    quick = config.model_copy(
        update={"rounds": MAX_RETIMING_ROUNDS, "time_budget_s": config.retiming_budget_s}
    )
    codes_of_anchors = np.array([anchor.codes for anchor in anchors], dtype=np.int16)
    found = time_networks(
        space,
        np.concatenate([codes, codes_of_anchors.reshape(-1, codes.shape[1])]),
        project.devices[device],
        files.timings(device, number),
        quick,
        seed=project.config.seed,
        transport=project.transport(device),
    )
    now = np.array([timing.median_ms for timing in found.timings])
    then = np.array([anchor.measured_ms for anchor in anchors])
    drift = float(np.median(now[len(codes) :] / then)) if anchors else 1.0
    return now[: len(codes)] / drift
