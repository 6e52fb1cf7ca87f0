"""Stage `search`: the controller on every target, and random search beside it at equal budgets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hwnas.controller.archive import FILES, Archive
from hwnas.controller.constraints import resolve
from hwnas.controller.controller import Predict, Rescoring, run_search
from hwnas.controller.remeasure import Closing, close_on_devices
from hwnas.controller.result import Candidate, SearchResult
from hwnas.core.errors import UserError
from hwnas.core.progress import Progress, silent
from hwnas.core.records import dump, load
from hwnas.core.store import file_hash, read_json, write_json
from hwnas.interfaces import Constraint, CostMetric, Evaluation, FloatArray, SearcherContext
from hwnas.measure.profile import time_networks
from hwnas.pipeline.costs import prices
from hwnas.pipeline.evaluators import JournaledEvaluator, evaluator, scores_of, tabular_rescoring
from hwnas.pipeline.project import Project
from hwnas.pipeline.stages.label import score_all
from hwnas.pipeline.stages.predictor import blend_for, build_predictor, load_predictor
from hwnas.predictors.open_records import open_records
from hwnas.searchers import REGISTRY as SEARCHERS
from hwnas.searchers.random import Config as RandomConfig
from hwnas.spaces.arch import Arch
from hwnas.spaces.space import Codes

__all__ = [
    "BASELINE",
    "OWNS",
    "assist",
    "constraints_for",
    "constraints_on",
    "evaluate_together",
    "input_hash",
    "read_archive",
    "read_closing",
    "read_result",
    "result_on",
    "search",
    "winners_by_device",
]

BASELINE = "random"  # folder of the baseline inside the search's folder
EVALUATE, FINISHED = "evaluate", "finished"  # what rank 0 tells the others
N_ANCHORS = 6  # networks of the table that are timed again beside the best archs
MAX_RETIMING_ROUNDS = 2000
OWNS = (
    *FILES,
    "state.json",
    "result.json",
    "fronts",
    "rounds",
    "closing",
    "closing.json",
    "devices",
    BASELINE,
)  # inside the search's folder


def search(project: Project, progress: Progress) -> None:
    """Run the configured searcher, then random search, with equal predictions and evaluations.

    With `per_device`, the searcher runs once for every device. Rank 0 searches, all evaluate.
    """
    if not project.ranks.leads:
        assist(project, lambda: evaluator(project))
        return
    config = project.config.search
    for device in _targets(project):
        _search_one(project, config.searcher, _folder(project, device), progress, device)
    first = next(iter(project.devices)) if config.per_device else None
    _search_one(project, RandomConfig(), project.search_path(BASELINE), progress, first)
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


def input_hash(project: Project) -> str | None:
    """Content of the records that stand for the supernet, if there are any."""
    records = project.config.search.evaluator.records
    return None if records is None or not records.is_file() else file_hash(records)


def _targets(project: Project) -> tuple[str | None, ...]:
    """Devices that have a search of their own; None: all together."""
    return tuple(project.devices) if project.config.search.per_device else (None,)


def winners_by_device(project: Project) -> dict[str, Candidate]:
    """The winner for every device, priced on all; that of the first where all share one."""
    first = next(iter(project.devices))
    return {d or first: read_result(project, device=d).winner for d in _targets(project)}


def _folder(project: Project, device: str | None) -> Path:
    is_main = device is None or device == next(iter(project.devices))
    return project.search_path() if is_main else project.search_path("devices", str(device))


def read_result(
    project: Project, *, baseline: bool = False, device: str | None = None
) -> SearchResult:
    """What the search (or its random baseline, or that of one device) found."""
    folder = project.search_path(BASELINE) if baseline else _folder(project, device)
    return load(SearchResult, read_json(folder / "result.json"), where=folder / "result.json")


def result_on(project: Project, device: str) -> SearchResult:
    """The search whose winner a device gets: its own, or the one for all."""
    return read_result(project, device=device if project.config.search.per_device else None)


def read_closing(project: Project, device: str | None = None) -> Closing | None:
    """How the search ended on its devices; None if nothing was re-timed."""
    path = _folder(project, device) / "closing.json"
    return load(Closing, read_json(path), where=path) if path.exists() else None


def read_archive(project: Project, *, baseline: bool = False) -> Archive:
    """Everything that the search (or its random baseline) priced, forecast and evaluated.

    Of a search that was closed on the device, the last round.
    """
    folder = project.search_path(BASELINE) if baseline else project.search_path()
    closing = None if baseline else read_closing(project)
    if closing is not None:
        folder = _round(folder, closing.n_rounds - 1)
    return Archive.load(folder, project.space)


def constraints_on(project: Project, device: str) -> tuple[Constraint, ...]:
    """The constraints under which a device's winner was found."""
    return constraints_for(project, device if project.config.search.per_device else None)


def constraints_for(project: Project, device: str | None) -> tuple[Constraint, ...]:
    """All constraints, or those of one device and of none.

    A device without a latency limit gets the project's, if that is a fraction of the largest arch.

    Raises:
        UserError: there is none that could be carried over.
    """
    given = project.config.search.constraints
    if device is None:
        return given
    general = tuple(c for c in given if not c.metric.startswith("latency"))
    latencies = [c for c in given if c.metric.startswith("latency")]
    own = tuple(c for c in latencies if c.device == device)
    if own or not latencies:
        return (*general, *own)
    fractions = [c for c in latencies if c.max_fraction_of_largest is not None]
    if not fractions:
        raise UserError(
            f"no latency limit for device {device!r}",
            expected="a constraint of its own, or one that is a fraction of the largest arch",
            found="; ".join(f"{c.metric} on {c.device} <= {c.max} ms" for c in latencies),
            where="search.constraints",
            fix=f"add {{device: {device}, metric: latency_ms, max: ...}}",
        )
    return (*general, replace(fractions[0], device=device))


def _round(folder: Path, number: int) -> Path:
    return folder if number == 0 else folder / "rounds" / str(number)


def _search_one(
    project: Project, searcher_config: Any, folder: Path, progress: Progress, device: str | None
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
            folder=_round(folder, number),
            rescoring=rescoring,
            progress=progress,
        )

    limited = [c.device for c in config.constraints if c.metric == "latency_ms"]
    is_baseline = folder == project.search_path(BASELINE)
    if section.closing.max_rounds and limited and not is_baseline:
        result, closing = close_on_devices(
            project.space,
            {name: project.estimator(name).table for name in limited},
            run,
            lambda name, codes, number: _retime(project, folder, name, codes, number),
            n_retimed=section.closing.n_retimed,
            max_rounds=section.closing.max_rounds,
        )
        write_json(folder / "closing.json", dump(closing))
        progress(config.n_predictions, config.n_predictions, closing.reason)
    else:
        result = run({}, 0)
    for key, front in result.fronts.items():
        write_json(
            folder / "fronts" / f"{key.replace('@', '-')}.json",
            {"schema_version": 1, "front": [dump(c, versioned=False) for c in front]},
        )
    write_json(folder / "result.json", dump(result))


def _scoring(project: Project) -> tuple[Predict | None, Rescoring]:
    """Forecast and evaluations: predictor and supernet, or records that the predictor learns."""
    chosen = project.config.search.evaluator
    if chosen.records is not None:
        space = project.config.space.model_dump(exclude={"name"})
        source = open_records(
            chosen.records,
            reader=chosen.reader,
            space=project.config.space.name,
            settings=[f"{key}={value}" for key, value in _plain(space).items()],
            num_classes=project.space.macro.num_classes,
        )
        records = source.records(chosen.target)
        return None, tabular_rescoring(records, project.space, lambda: build_predictor(project))
    scorer = evaluator(project)
    return load_predictor(project).predict, Rescoring(
        evaluate=lambda archs: evaluate_together(project, scorer, archs),
        label=lambda evaluation: float(scores_of([evaluation])[0]),
        blend=blend_for(project),
        at_once=project.ranks.size,
    )


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: list(v) if isinstance(v, tuple) else v for key, v in settings.items()}


def _retime(project: Project, folder: Path, device: str, codes: Codes, number: int) -> FloatArray:
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
        folder / "closing" / f"{number}-{device}",
        quick,
        seed=project.config.seed,
        transport=project.transport(device),
    )
    now = np.array([timing.median_ms for timing in found.timings])
    then = np.array([anchor.measured_ms for anchor in anchors])
    drift = float(np.median(now[len(codes) :] / then)) if anchors else 1.0
    return now[: len(codes)] / drift
