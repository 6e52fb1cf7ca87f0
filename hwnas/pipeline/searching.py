"""Stage `search`: the controller, and random search beside it at equal budgets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hwnas.core.progress import Progress
from hwnas.core.records import dump, load
from hwnas.core.store import read_json, write_json
from hwnas.interfaces import CostMetric
from hwnas.pipeline.metrics import cost_metrics
from hwnas.pipeline.predicting import blend_for, load_predictor
from hwnas.pipeline.project import Project
from hwnas.pipeline.training import evaluator, scores_of
from hwnas.search.archive import Archive
from hwnas.search.controller import Rescoring, run_search
from hwnas.search.result import SearchResult
from hwnas.searchers import REGISTRY as SEARCHERS
from hwnas.searchers.random import Config as RandomConfig

__all__ = ["BASELINE", "prices", "read_archive", "read_result", "search"]

BASELINE = "random"  # folder of the baseline inside the search's folder


def search(project: Project, progress: Progress) -> None:
    """Run the configured searcher, then random search, with equal predictions and evaluations."""
    config = project.config.search
    _search_one(project, config.searcher, project.search_path(), progress)
    _search_one(project, RandomConfig(), project.search_path(BASELINE), progress)


def read_result(project: Project, *, baseline: bool = False) -> SearchResult:
    """What the search (or its random baseline) found."""
    path = _result_path(project.search_path(BASELINE) if baseline else project.search_path())
    return load(SearchResult, read_json(path), where=path)


def read_archive(project: Project, *, baseline: bool = False) -> Archive:
    """Everything that the search (or its random baseline) priced, forecast and evaluated."""
    folder = project.search_path(BASELINE) if baseline else project.search_path()
    return Archive.load(folder / "archive.jsonl", project.space)


def prices(project: Project) -> dict[str, CostMetric]:
    """All metrics that the project can price archs with, by metric key."""
    return cost_metrics(
        project.space, {device: project.estimator(device) for device in project.devices}
    )


def _result_path(folder: Path) -> Path:
    return folder / "result.json"


def _search_one(project: Project, searcher_config: Any, folder: Path, progress: Progress) -> None:
    space, config, seed = project.space, project.config.search, project.config.seed
    module = SEARCHERS.load(searcher_config.name)
    predictor = load_predictor(project)
    result = run_search(
        space,
        module.build(searcher_config, space=space, seed=seed),
        predict=predictor.predict,
        metrics=prices(project),
        config=config,
        seed=seed,
        folder=folder,
        rescoring=Rescoring(
            evaluator=evaluator(project),
            label=lambda evaluation: float(scores_of([evaluation])[0]),
            blend=blend_for(project),
        ),
        progress=progress,
    )
    for key, front in result.fronts.items():
        write_json(
            folder / "fronts" / f"{key.replace('@', '-')}.json",
            {"schema_version": 1, "front": [dump(c, versioned=False) for c in front]},
        )
    write_json(_result_path(folder), dump(result))
