"""Evaluations until the best arch is found, on tables of accuracies; hypervolume of fronts."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from predictor_parts.nasbench201 import TARGETS, accuracies

from hwnas.acquisitions import exploration, hypervolume
from hwnas.controller.controller import run_search
from hwnas.controller.sections import SearchConfig
from hwnas.core.errors import UserError
from hwnas.core.pareto import hypervolume_2d
from hwnas.core.rng import rng
from hwnas.interfaces import PredictorContext, SearcherContext
from hwnas.pipeline.costs import cost_metrics
from hwnas.pipeline.evaluators import TabularRescoring
from hwnas.predictors import gp
from hwnas.predictors.open_records import open_records
from hwnas.predictors.records import Records
from hwnas.searchers import REGISTRY
from hwnas.spaces.cost import cost
from search_parts.cells import Cells, Settings

__all__ = [
    "EXPLORATION",
    "SETTINGS",
    "Watched",
    "evaluated_in_order",
    "macro_front",
    "nasbench201_queries",
]

MOST = 300
"""Evaluations of one search; a search that has not found the best by then counts as `MOST` + 1."""
MARKS = (50, 100, 200)

SETTINGS: dict[str, Any] = {
    "generation_size": 64,
    "evaluate_every": 1,
    "n_initial": 10,
}
"""Settings of every search on tables, chosen for all of them together."""
EXPLORATION = exploration.Config(weight=4.0, uncertain_every=5)

Rows = Callable[[Records, int, int], list[int]]
"""Rows of the records in the order of evaluation, by records, number and seed."""


class Found(Exception):
    """The best arch was evaluated."""


class Watched(TabularRescoring):
    """Remembers the evaluated archs in order; `stops`: raises `Found` at the best arch."""

    def __init__(self, records: Records, seed: int, *, stops: bool = False) -> None:
        space = records.space
        super().__init__(
            records,
            space,
            lambda: gp.build(gp.Config(features="operators"), PredictorContext(space, seed)),
        )
        self.seen: list[tuple[int, ...]] = []
        self._best = float(records.scores.max()) if stops else np.inf

    def evaluate(self, archs: Any) -> Any:
        """As in the base class; repeats are answered, but not counted."""
        known = set(self.seen)
        found = super().evaluate(archs)
        for arch, evaluation in zip(archs, found, strict=True):
            if arch.codes not in known:
                self.seen.append(arch.codes)
            if evaluation.top1 >= self._best:
                raise Found
        return found


def evaluated_in_order(records: Records, n: int, seed: int, *, for_front: bool) -> list[int]:
    """Rows that a search of hwnas evaluates; stops at the best arch unless it is `for_front`."""
    watched = Watched(records, seed, stops=not for_front)
    module = REGISTRY.load("evolution")
    with tempfile.TemporaryDirectory() as folder, suppress(Found):
        run_search(
            records.space,
            module.build(module.Config(), SearcherContext(records.space, seed)),
            predict=None,
            metrics=cost_metrics(records.space, {}),
            config=SearchConfig(n_predictions=64 * n, n_evaluations=n, **SETTINGS),
            seed=seed,
            folder=Path(folder),
            rescoring=watched,
            acquisition=hypervolume.build(hypervolume.Config())
            if for_front
            else exploration.build(EXPLORATION),
        )
    row_of = {tuple(codes): row for row, codes in enumerate(records.codes.tolist())}
    return [row_of[codes] for codes in watched.seen]


def _by_searcher(name: str, *, skips: bool = False, most: int = 50, **settings: Any) -> Rows:
    """A registered searcher that is told true scores; archs outside the records are free.

    skips: such archs are skipped, as hwnas does; otherwise the searcher is told the worst score.
    most: proposals per evaluation, with repeats and archs outside the records.
    """

    def rows(records: Records, n: int, seed: int) -> list[int]:
        space, module = records.space, REGISTRY.load(name)
        searcher = module.build(module.Config(**settings), SearcherContext(space, seed))
        row_of = {key: row for row, key in enumerate(space.keys(records.codes))}
        macs = cost(space, records.codes, "macs") / cost(space, records.codes, "macs").max()
        found: dict[int, None] = {}
        worst = float(records.scores.min())
        for _ in range(most * n):
            codes = searcher.ask(1)
            if not len(codes) or len(found) >= n:
                break
            row = row_of.get(space.keys(codes)[0])
            if row is None and skips:
                searcher.tell(codes[:0], np.empty(0), np.empty((0, 2)))
                continue
            score = worst if row is None else float(records.scores[row])
            if row is not None:
                found[row] = None
            point = np.array([[-score, 1.0 if row is None else macs[row]]])
            searcher.tell(codes, np.array([score]), point)
        return list(found)

    return rows


def _tpe(records: Records, n: int, seed: int) -> list[int]:
    """Optuna's TPE; trials outside the records fail, so it learns nothing from them.

    It proposes known archs again and again, so it ends after 5 n trials.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = optuna.samplers.TPESampler(seed=seed)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    row_of = {key: row for row, key in enumerate(records.space.keys(records.codes))}
    found: dict[int, None] = {}
    for _ in range(5 * n):
        trial = study.ask()
        codes = [
            trial.suggest_categorical(choice.name, list(range(len(choice.values))))
            for choice in records.space.choices
        ]
        row = row_of.get(records.space.keys(np.array([codes], dtype=np.int16))[0])
        if row is None:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            continue
        found[row] = None
        study.tell(trial, float(records.scores[row]))
        if len(found) >= n or records.scores[row] >= records.scores.max():
            break
    return list(found)


def _random(records: Records, n: int, seed: int) -> list[int]:
    drawn = rng(seed, "benchmark/random").permutation(len(records))[:n]
    return [int(row) for row in drawn]


def _hwnas(for_front: bool) -> Rows:
    return lambda records, n, seed: evaluated_in_order(records, n, seed, for_front=for_front)


AGING = {"population": 20, "tournament": 5, "mutation": 0.17, "crossover": 0.0}
QUERIES: dict[str, Rows] = {
    "hwnas": _hwnas(False),
    "regularised_evolution": _by_searcher("evolution", skips=True, survival="aging", **AGING),
    "tpe": _tpe,
    "random": _random,
}
FRONTS: dict[str, Rows] = {
    "hwnas": _hwnas(True),
    "evolution": _by_searcher("evolution", skips=True, survival="front", population=20),
    "pymoo_nsga2": _by_searcher("pymoo", objective="front", population=20),
    "optuna_nsga2": _by_searcher("optuna", objective="front", sampler="nsga2", population=20),
    "optuna_tpe": _by_searcher("optuna", objective="front", most=5),  # slow with many trials
    "random": _random,
}


def nasbench201_queries(cells: Cells, settings: Settings) -> dict[str, Any]:
    """Median and 90th percentile over seeds of the evaluations until the half's optimum."""
    return {
        records.target: {
            "best_percent": round(100 * float(records.scores.max()), 3),
            **_rows(
                QUERIES,
                settings,
                lambda name, rows, seed, r=records: cells.get(
                    f"{r.target}-{name}-{seed}", lambda: _until_best(r, rows, seed)
                ),
                lambda found: {
                    "median": float(np.median([row["n"] for row in found])),
                    "percentile_90": float(np.percentile([row["n"] for row in found], 90)),
                    "not_found": sum(row["n"] > MOST for row in found),
                    "n_seeds": len(found),
                    "seconds": sum(row["seconds"] for row in found),
                },
            ),
        }
        for records in _three(settings.data)
    }


def macro_front(cells: Cells, settings: Settings) -> dict[str, Any]:
    """Median hypervolume (points of accuracy times share of the MACs) on NAS-Bench-Macro."""
    records = open_records(settings.data / "nas_bench_macro" / "cifar10.json").records()
    macs = cost(records.space, records.codes, "macs")
    points = np.stack([-100 * records.scores, macs / macs.max()], axis=1)
    reference = (float(-100 * records.scores.min()), 1.0)
    whole = hypervolume_2d(points, reference)

    def one(rows: Rows, seed: int) -> dict[str, Any]:
        begin, order = time.process_time(), rows(records, MARKS[-1], seed)
        found = {str(n): hypervolume_2d(points[order[:n]], reference) / whole for n in MARKS}
        return {**found, "seconds": round(time.process_time() - begin, 2)}

    return _rows(
        FRONTS,
        settings,
        lambda name, rows, seed: cells.get(f"{name}-{seed}", lambda: one(rows, seed)),
        lambda found: {
            **{
                f"share_{n}": round(float(np.median([row[str(n)] for row in found])), 5)
                for n in MARKS
            },
            "n_seeds": len(found),
        },
    )


def _rows(
    contenders: dict[str, Rows],
    settings: Settings,
    one: Callable[[str, Rows, int], dict[str, Any]],
    summary: Callable[[list[dict[str, Any]]], dict[str, Any]],
) -> dict[str, Any]:
    """A summary of all seeds for each contender whose package is installed."""
    found: dict[str, Any] = {}
    skipped = []
    for name, rows in contenders.items():
        try:
            found[name] = summary([one(name, rows, seed) for seed in range(settings.seeds or 20)])
        except (ImportError, LookupError, UserError) as error:
            skipped.append(f"{name}: {error}")
    return {**found, "skipped": skipped}


def _until_best(records: Records, rows: Rows, seed: int) -> dict[str, Any]:
    begin, order = time.process_time(), rows(records, MOST, seed)
    is_best = records.scores[order] >= records.scores.max()
    n = int(is_best.argmax()) + 1 if is_best.any() else MOST + 1
    return {"n": n, "seconds": round(time.process_time() - begin, 2)}


def _three(data: Path) -> Iterator[Records]:
    """The shared half of NAS-Bench-201 with its accuracies on three data sets after 200 epochs."""
    half = accuracies(data)
    for name, column in TARGETS.items():
        yield Records(half.space, half.codes, half.columns[name], column, 0)
