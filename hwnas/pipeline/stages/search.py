"""Stage `search`: searches on every device, and runs random search at an equal budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from hwnas.acquisitions import REGISTRY as ACQUISITIONS
from hwnas.controller.constraints import metric_key, resolve
from hwnas.controller.controller import run_search
from hwnas.controller.exchange import exchanged
from hwnas.controller.remeasure import Measured, remeasure
from hwnas.controller.result import SearchResult, to_evaluate, with_accuracies
from hwnas.controller.scorer import Rescoring
from hwnas.controller.sections import SearchConfig
from hwnas.controller.staged import search_in_stages
from hwnas.core.command import command_line
from hwnas.core.errors import NotJudged
from hwnas.core.progress import Parts, Progress
from hwnas.interfaces import (
    Acquisition,
    Constraint,
    CostMetric,
    Evaluation,
    SearcherContext,
    quality_of,
)
from hwnas.measure.drift import can_judge, judge, pace_text
from hwnas.measure.networks import network_id, network_models
from hwnas.pipeline.artifacts import SearchFiles
from hwnas.pipeline.checks import asked
from hwnas.pipeline.config import SearchSection
from hwnas.pipeline.costs import prices
from hwnas.pipeline.data_source import LEARNING
from hwnas.pipeline.evaluators import evaluator, score_unit
from hwnas.pipeline.foreign_tables import timed_devices
from hwnas.pipeline.plan import Stage
from hwnas.pipeline.project import Project
from hwnas.pipeline.scoring import FINISHED, assist, scoring
from hwnas.pipeline.search_checks import can_search
from hwnas.pipeline.search_files import REMADE
from hwnas.pipeline.task import task
from hwnas.pipeline.timing import time_beside_table
from hwnas.pipeline.winners import constraints_for, has_smaller_images, search_files, targets
from hwnas.searchers import REGISTRY as SEARCHERS
from hwnas.searchers.random import Config as RandomConfig
from hwnas.spaces.space import Codes, SearchSpace

__all__ = ["check", "search", "stage"]

RECORDS = "search.evaluator.records"
SHARE, FRONT_SHARE = 100, 30  # units of progress: of one search, and of evaluating its fronts
N_AT_ONCE = 8  # archs of the fronts that every process evaluates between two reports


def stage(project: Project) -> Stage:
    """Searches for all devices together or for each one, and runs random search to compare."""
    files, section = project.files, project.config.search
    has_records = section.evaluator.records is not None
    name, main = f"search/{section.name}", files.main_search
    return Stage(
        name=name,
        command=command_line("search", project.run.root),
        needs=_needs(project),
        names=("seed", "space", "data", "label.calibration", "search", "search.evaluator.records"),
        settings=[
            project.config.seed,
            project.space_settings,
            project.source.settings,
            project.settled["label"]["calibration"],
            {k: v for k, v in project.settled["search"].items() if k != "references"},
            project.outside.sha256(RECORDS),
        ],
        owns=tuple(map(files.pattern, main.owned)),
        outputs=(files.pattern(main.result.path), files.pattern(files.baseline.result.path)),
        remade=tuple(files.pattern(main.folder / name) for name in REMADE),
        run=task(project, name, search, together=True, reads_data=not has_records),
        cost=f"2 x {section.n_predictions} predictions, {section.n_evaluations} subnet evaluations,"
        " and the evaluation of the fronts",
        reads=project.outside.paths(RECORDS),
        data=None if has_records else project.source.input(LEARNING),
        is_provisional=True,
        check=lambda: check(project),
        asks=asked(project, _limited(project) if section.closing.max_rounds else ()),
    )


def _needs(project: Project) -> tuple[str, ...]:
    """Tables of all devices, supernet and predictor; with records only limited devices' tables."""
    section = project.config.search
    if section.evaluator.records is None:
        return (*(f"profile/{device}" for device in project.devices), "train", "predictor")
    return tuple(f"profile/{device}" for device in _limited(project))


def _limited(project: Project) -> list[str]:
    """Devices with a limit on latency or energy."""
    limited = {c.device for c in project.config.search.constraints if metric_key(c).device}
    return [device for device in project.devices if device in limited]


def check(project: Project) -> None:
    """Refuses a search that would fail (see `can_search`), and records that cannot be used.

    Raises:
        UserError: gives the reason.
    """
    can_search(project)
    if project.config.search.evaluator.records is not None:
        scoring(project)


def search(project: Project, progress: Progress) -> None:
    """Runs the configured searcher, then random search with as many predictions and evaluations.

    With `per_device`, the searcher runs once for every device. Without re-measurement, a device
    then gets the winner of another device if that is estimated to be better there. Rank 0 searches,
    and all ranks evaluate.
    """
    if not project.ranks.leads:
        assist(project, lambda: evaluator(project))
        return
    config, found = project.config.search, targets(project)
    parts = Parts(progress, [SHARE] * (len(found) + 1))
    for number, device in enumerate(found):
        name = config.searcher.name + f" for {device}" * (device is not None)
        one = parts.part(number, name)
        _search_one(project, config.searcher, search_files(project, device), one, device)
    if config.per_device and not config.closing.max_rounds:
        _exchange(project)
    first = project.first_device if config.per_device else None
    last = parts.part(len(found), "random search at equal cost")
    _search_one(project, RandomConfig(), project.files.baseline, last, first)
    project.ranks.tell(FINISHED)


def _exchange(project: Project) -> None:
    """Replaces the winner of a device if another device's winner is estimated to be better there.

    Re-measured winners stay, because they were timed within their limits and the others were not.
    """
    files = {device: search_files(project, device).result for device in project.devices}
    results = {device: file.read() for device, file in files.items()}
    for device, result in exchanged(results).items():
        if result is not results[device]:
            files[device].write(result)


def _search_one(
    project: Project,
    searcher_config: Any,
    files: SearchFiles,
    progress: Progress,
    device: str | None,
) -> None:
    """Searches for one target, with re-measurement if configured."""
    section, seed = project.config.search, project.config.seed
    module, metrics = SEARCHERS.load(searcher_config.name), prices(project)
    predict, rescoring = scoring(project)
    config = section.model_copy(update={"constraints": _absolute(project, device, metrics)})
    limited = _timed_limits(project, config.constraints)
    is_baseline = files == project.files.baseline
    remeasures = bool(section.closing.max_rounds and limited and not is_baseline)
    n_rounds = section.closing.max_rounds if remeasures else 1
    whole = Parts(progress, [SHARE] * n_rounds + [FRONT_SHARE * (not is_baseline)])

    def run(corrected: Mapping[str, CostMetric], number: int) -> SearchResult:
        stages = () if is_baseline else config.stages
        named = whole.part(number, f"round {number + 1}" * remeasures)
        parts = Parts(named, [SHARE] * max(1, len(stages)))

        def one(space: SearchSpace, part: SearchConfig, stage: int) -> SearchResult:
            return run_search(
                space,
                module.build(searcher_config, SearcherContext(space, seed)),
                predict=predict,
                metrics=prices(project, corrected) if corrected else metrics,
                config=part,
                seed=seed,
                folder=files.part(number, stage, of=len(config.stages)),
                rescoring=rescoring,
                acquisition=_acquisition(section),
                unchanged=None if is_baseline or stages else _unchanged(project),
                progress=parts.part(stage, f"stage {stage + 1}" * bool(stages)),
                unit=score_unit(project),
            )

        alone, space = config.model_copy(update={"stages": (), "held": {}}), project.space
        return search_in_stages(space, config, one) if stages else one(space, alone, 0)

    if remeasures:
        result, found = remeasure(
            project.space,
            {name: project.files.read_table(name) for name in limited},
            run,
            lambda name, codes, number: _measure(project, files, name, codes, number),
            n_archs=section.closing.n_retimed,
            max_rounds=section.closing.max_rounds,
            share=section.limits_met_on,
        )
        files.remeasurement.write(found)
        whole.part(n_rounds)(0, 1, found.reason)
    else:
        result = run({}, 0)
    if not is_baseline:
        result = _evaluate_fronts(project, result, rescoring, whole.part(n_rounds))
    files.write_fronts(result.fronts)
    files.result.write(result)


def _timed_limits(project: Project, constraints: Sequence[Constraint]) -> list[str]:
    """Devices with a limit on latency on which archs can be timed."""
    timed = timed_devices(project)
    return [c.device for c in constraints if metric_key(c).is_latency and c.device in timed]


def _acquisition(section: SearchSection) -> Acquisition | None:
    chosen = section.acquisition
    return None if chosen is None else ACQUISITIONS.load(chosen.name).build(chosen)


def _unchanged(project: Project) -> Codes | None:
    """The published network at all resolutions, smallest first; None: the space has none."""
    if not has_smaller_images(project):
        return None
    space = project.space
    archs = np.repeat(space.codes([space.largest()]), len(space.allowed[0]), axis=0)
    archs[:, 0] = space.allowed[0]
    return archs


def _evaluate_fronts(
    project: Project, result: SearchResult, rescoring: Rescoring, progress: Progress
) -> SearchResult:
    """The result with the accuracies of points along its fronts (`to_evaluate`), where possible.

    These evaluations come after the search and do not affect it, so budgets stay comparable.
    """
    archs = to_evaluate(result)
    admitted = rescoring.admits(project.space.codes(archs))
    archs = [arch for arch, is_in in zip(archs, admitted, strict=True) if is_in]
    found: list[Evaluation] = []
    for start in range(0, len(archs), size := N_AT_ONCE * project.ranks.size):
        found += rescoring.evaluate(archs[start : start + size])
        progress(len(found), len(archs), "accuracies of the fronts")
    known = dict(zip(archs, found, strict=True))
    return with_accuracies(result, known, quality_of(project.space))


def _absolute(
    project: Project, device: str | None, metrics: Mapping[str, CostMetric]
) -> tuple[Constraint, ...]:
    """The constraints of the target in ms, bytes, ...

    The limits stay constant while re-measurement corrects the prices to which fractions refer.
    """
    limits = resolve(constraints_for(project, device), metrics, project.space)
    return tuple(
        replace(limit.constraint, max=limit.max, max_fraction_of_largest=None) for limit in limits
    )


def _measure(
    project: Project, files: SearchFiles, device: str, codes: Codes, number: int
) -> Measured:
    """Latencies of archs [n, d], timed as whole networks, at the speed of the table.

    Raises:
        NotJudged: the machine is too far from that speed; the next call measures again.
    """
    spec, seed = project.devices[device], project.config.seed
    models = network_models(project.space, codes, spec, seed=seed)
    table, folder = project.files.read_table(device), files.timings(device, number)
    timings = time_beside_table(project, device, models, table, folder)
    if timings.pace is not None and not can_judge(timings.pace):
        raise NotJudged(
            f"the best archs cannot be re-measured on {device}",
            found=pace_text(timings.pace),
            where="search.closing",
            fix="repeat the command when the machine is idle, the search then resumes; or"
            f" {command_line('profile', device, '--run', project.run.root)}",
        )
    judged = [
        judge(timings.models[network_id(project.space, row)], None, timings.pace) for row in codes
    ]
    return {
        "latency_ms": np.array([one.median_ms for one in judged]),
        "latency_p95_ms": np.array([one.p95_ms for one in judged]),
    }
