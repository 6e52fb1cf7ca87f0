"""The loop of a search: propose, price, predict, reward, archive, evaluate the best, resume."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from hwnas.controller.archive import Archive, Rows
from hwnas.controller.constraints import Limit, price, ratios, reach, resolve
from hwnas.controller.result import Candidate, SearchResult, candidates
from hwnas.controller.reward import reward
from hwnas.controller.scorer import Predict, Rescoring, Scorer
from hwnas.controller.sections import SearchConfig
from hwnas.controller.storage import STATE, Progressed, SearchFolder
from hwnas.core.config import settled
from hwnas.core.errors import UserError, parts_of
from hwnas.core.metrics import MetricKey
from hwnas.core.progress import Progress, silent
from hwnas.core.store import content_hash
from hwnas.interfaces import Acquisition, CostMetric, FloatArray, Searcher, quality_of
from hwnas.spaces.space import Codes, SearchSpace

__all__ = ["Predict", "Rescoring", "run_search"]

SAVE_EVERY_S = 2.0  # maximum loss after a kill; evaluations are never lost
NOTE_EVERY_S = 1.0
NOTED_COSTS = 2  # devices whose latencies are shown
UNITS = {"latency_ms": "ms", "energy_mj": "mJ"}  # metrics with a front of their own
LIMITS = ("constraints", "limits_met_on")  # settings that `limits` contains


@runtime_checkable
class _HasMode(Protocol):
    def mode(self) -> Codes: ...


def run_search(
    space: SearchSpace,
    searcher: Searcher,
    *,
    predict: Predict | None,
    metrics: Mapping[str, CostMetric],
    config: SearchConfig,
    seed: int,
    folder: Path,
    rescoring: Rescoring | None = None,
    acquisition: Acquisition | None = None,
    unchanged: Codes | None = None,
    progress: Progress = silent,
    unit: str = "",
) -> SearchResult:
    """Searches `space` within the budgets of `config`; resumes the search in `folder`.

    All searchers are used in the same way. `metrics` (by `MetricKey`) price the proposals,
    `predict` scores them, the searcher gets the rewards, and the archive stores the archs. So two
    searchers with equal `config` get equal budgets. The archive also contains one arch known to be
    feasible from the start, so there is always a winner. Constrained metrics and latencies are
    priced for every arch, other metrics only for reported archs.

    Without `predict`, `rescoring.refit` learns it: first from `config.n_initial` uniform archs,
    later from all evaluations so far. `acquisition` selects the archs that are evaluated during the
    search; default: the largest mean plus `config.exploration` deviations.

    `unchanged` [n, d] are archs that one would use without a search, from cheap to expensive. The
    last of them that meets the constraints is evaluated first.

    The archive and `state.json` are saved to `folder` after every evaluation and every few seconds.
    If `predict`, pricing and evaluator are deterministic, a killed and resumed search gives the
    same result (except with `max_seconds`, after which the running evaluation is the last one). At
    least one evaluation is always made. The progress states the best score in `unit`.

    Raises:
        UserError: the constraints cannot be priced or met, predictions are not finite, or `folder`
            contains another search, or one with another `predict`.
    """
    if predict is None and (rescoring is None or not rescoring.learns):
        raise ValueError("a search needs `predict`, or a `rescoring` that learns predictions")
    limits = resolve(config.constraints, metrics, space, share=config.limits_met_on)
    anchor = reach(space, metrics, limits, seed=seed)
    store = SearchFolder(folder, _fingerprint(space, searcher, metrics, config, limits, seed))
    stored = store.load(space)
    if stored is None:
        archive = Archive(space, _tracked(metrics, limits))
        done = Progressed(0, 0, 0, 0, 0.0, searcher.state())
    else:
        archive, done = stored
        _restore(searcher, done, folder)
    scorer = Scorer(space, predict, metrics, limits, archive, rescoring, seed, acquisition)
    if stored is not None and len(archive):
        scorer.check_resumed(folder)
    scorer.rows(anchor)
    scorer.begin(min(config.n_initial, config.n_evaluations), unchanged)
    search = _Search(searcher, config, metrics, limits, store, archive, scorer, done, unit)
    search.propose(progress)
    return search.finish(progress)


def _restore(searcher: Searcher, done: Progressed, folder: Path) -> None:
    """Restores the state of the searcher.

    Raises:
        UserError: the state belongs to another searcher.
    """
    try:
        searcher.load_state(done.searcher)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise UserError(
            "the searcher cannot load its stored state",
            **{"expected": "a state that this searcher stored", **parts_of(error)},
            where=folder / STATE,
            fix="remove this file: the search starts again, and its evaluations are kept",
        ) from error


class _Search:
    """A search that continues from its last saved state `done`."""

    def __init__(
        self,
        searcher: Searcher,
        config: SearchConfig,
        metrics: Mapping[str, CostMetric],
        limits: tuple[Limit, ...],
        store: SearchFolder,
        archive: Archive,
        scorer: Scorer,
        done: Progressed,
        unit: str,
    ) -> None:
        self._searcher, self._config = searcher, config
        self._metrics, self._limits = metrics, limits
        self._store, self._archive, self._scorer, self._unit = store, archive, scorer, unit
        self._generation, self._n_proposals = done.generation, done.n_proposals
        self._begin = time.monotonic() - done.seconds
        self._hurry = None if config.max_seconds is None else self._is_late

    def propose(self, progress: Progress) -> None:
        """Runs generations until a budget is spent or the searcher has nothing left to propose."""
        config = self._config
        saved, note, noted = time.monotonic(), "", -np.inf
        n_shares = -(-config.n_generations // config.evaluate_every)
        while self._n_proposals < config.n_predictions and not self._is_late():
            n_left = config.n_predictions - self._n_proposals
            codes = self._searcher.ask(min(config.generation_size, n_left))
            if not len(codes):
                break
            self._tell(codes, self._scorer.rows(codes))
            self._generation += 1
            self._n_proposals += len(codes)
            share = config.n_evaluations * (self._generation // config.evaluate_every) // n_shares
            evaluated = self._scorer.evaluate_up_to(share, config.exploration, is_late=self._hurry)
            if evaluated or time.monotonic() - saved >= SAVE_EVERY_S:
                self._save()
                saved = time.monotonic()
            if time.monotonic() - noted >= NOTE_EVERY_S:
                note, noted = self._note(), time.monotonic()
            n = f"{self._n_proposals:,} of {config.n_predictions:,} proposals"
            progress(self._n_proposals, config.n_predictions, f"{n}; {note}")
        self._save()

    def finish(self, progress: Progress) -> SearchResult:
        """Spends the remaining evaluations, and returns the best archs."""
        config, archive, searcher = self._config, self._archive, self._searcher
        mode = self._scorer.rows(searcher.mode()) if isinstance(searcher, _HasMode) else None
        self._scorer.evaluate_up_to(config.n_evaluations, is_late=self._hurry)
        archive.append_to(self._store.path)
        progress(config.n_predictions, config.n_predictions, self._note())
        top = self._report(archive.top(config.top_k, among=self._scorer.eligible()))
        return SearchResult(
            name=config.name,
            winner=top[0],
            top=top,
            fronts={key: self._report(archive.front(key)) for key in archive.cost_keys},
            mode=None if mode is None else self._report(mode)[0],
            limits={limit.key: limit.max for limit in self._limits},
            n_generations=self._generation,
            n_proposals=self._n_proposals,
            n_predictions=len(archive),
            n_evaluations=len(archive.evaluated),
        )

    def _tell(self, codes: Codes, rows: Rows) -> None:
        z = self._scorer.standardised(rows)
        keys = [limit.key for limit in self._limits]
        costs: dict[str, FloatArray] = {key: self._archive.column(key)[rows] for key in keys}
        over = ratios(self._limits, costs, len(z))
        objectives: FloatArray = np.concatenate([-z[:, None], over], axis=1)
        self._searcher.tell(codes, reward(self._config.reward, z, over), objectives)

    def _report(self, rows: Rows) -> tuple[Candidate, ...]:
        priced = price(self._metrics, self._archive.column("codes")[rows])
        return candidates(self._archive, rows, priced, self._scorer.evaluations(rows))

    def _save(self) -> None:
        sizes = len(self._archive), len(self._archive.evaluated)
        loop, seconds = (self._generation, self._n_proposals), time.monotonic() - self._begin
        progressed = Progressed(*sizes, *loop, seconds, self._searcher.state())
        self._store.save(self._archive, progressed)

    def _is_late(self) -> bool:
        limit = self._config.max_seconds
        return limit is not None and time.monotonic() - self._begin >= limit

    def _note(self) -> str:
        """The best score of an arch that may win, its accuracy, and its first costs.

        While no feasible arch was evaluated: the best feasible score, which is a prediction.
        """
        archive = self._archive
        feasible = np.flatnonzero(archive.column("feasible"))
        counted = f"{len(archive):,} archs, {len(archive.evaluated)} evaluated"
        if not len(feasible):
            return f"{counted}, none within the limits yet"
        may_win = np.flatnonzero(self._scorer.eligible())
        among = may_win if len(may_win) else feasible
        best = among[archive.column("score")[among].argmax()]
        note = f"{counted}; best score {archive.column('score')[best]:.3f}"
        note += f" ({self._unit})" if self._unit else ""
        for evaluation in self._scorer.evaluations(np.array([best])).values():
            quality = quality_of(archive.space)
            value = quality.of(evaluation.top1, evaluation.val_loss)
            shown = quality.text(value, evaluation.n_images)
            note += f", {evaluation.split} {quality.name} {shown}"
        keys = [key for key in archive.cost_keys if _has_a_front(key)] or [*archive.cost_keys]
        for key in keys[:NOTED_COSTS]:
            unit = UNITS.get(MetricKey.parse(key).metric, "")
            place = f" {unit} on {MetricKey.parse(key).device}" if unit else f" {key}"
            note += f", {archive.column(key)[best]:.3g}{place}"
        return note


def _tracked(metrics: Mapping[str, CostMetric], limits: tuple[Limit, ...]) -> tuple[str, ...]:
    """Metrics that are computed for every arch: constrained metrics, latencies and energies.

    MACs if there are none of these.
    """
    constrained = {limit.key for limit in limits}
    kept = [key for key in metrics if key in constrained or _has_a_front(key)]
    return tuple(kept or [key for key in metrics if key == "macs"])


def _has_a_front(key: str) -> bool:
    return MetricKey.parse(key).metric in UNITS


def _fingerprint(
    space: SearchSpace,
    searcher: Searcher,
    metrics: Mapping[str, CostMetric],
    config: SearchConfig,
    limits: tuple[Limit, ...],
    seed: int,
) -> str:
    settings = {key: v for key, v in settled(config).items() if key not in LIMITS}
    bounds = [_plain(limit) for limit in limits]
    kind = type(searcher).__name__
    return content_hash([space.fingerprint, kind, sorted(metrics), settings, bounds, seed])


def _plain(limit: Limit) -> dict[str, object]:
    """A limit for the fingerprint; fields of later versions are included only if they are set."""
    plain = asdict(limit)
    if limit.constraint.probability is None:
        del plain["constraint"]["probability"]
    if limit.share == 1:
        del plain["share"]
    return plain
