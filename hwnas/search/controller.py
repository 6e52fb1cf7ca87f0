"""The loop of a search: propose, price, forecast, reward, archive, evaluate the best, resume."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from hwnas.core.errors import UserError
from hwnas.core.progress import Progress, silent
from hwnas.core.records import SCHEMA_VERSION
from hwnas.core.rng import rng
from hwnas.core.store import content_hash, read_json, write_json
from hwnas.interfaces import CostMetric, Evaluation, Evaluator, FloatArray, Searcher
from hwnas.search.archive import Archive, Rows
from hwnas.search.config import SearchConfig
from hwnas.search.constraints import Limit, price, ratios, reach, resolve
from hwnas.search.result import SearchResult, candidates
from hwnas.search.reward import reward
from hwnas.spaces.space import Codes, SearchSpace

__all__ = ["Rescoring", "run_search"]

N_SCALE = 256  # uniform archs whose forecasts set the scale of the reward

Predict = Callable[[Codes], tuple[FloatArray, FloatArray]]
"""Mean [n] and standard deviation [n] of the forecast scores, higher is better."""


@dataclass(frozen=True)
class Rescoring:
    """How the most promising archs are scored again, by running them.

    `evaluator` journals what it measures before returning it and answers known archs from the
    journal; `label` reads the score off an evaluation, in the unit of the forecasts; `blend`
    joins forecast mean, forecast deviation and label ([n] each) into the score [n].
    """

    evaluator: Evaluator
    label: Callable[[Evaluation], float]
    blend: Callable[[FloatArray, FloatArray, FloatArray], FloatArray]


@runtime_checkable
class _HasMode(Protocol):
    def mode(self) -> Codes: ...


def run_search(
    space: SearchSpace,
    searcher: Searcher,
    *,
    predict: Predict,
    metrics: Mapping[str, CostMetric],
    config: SearchConfig,
    seed: int,
    folder: Path,
    rescoring: Rescoring | None = None,
    progress: Progress = silent,
) -> SearchResult:
    """Search `space` within the budgets of `config`; continues what `folder` holds.

    Every searcher is driven alike: `metrics` (by `constraints.metric_key`) price its proposals,
    `predict` scores them, the reward is told, the archive remembers them. At equal config two
    searchers hence get equal budgets. The archive also holds one arch known to be feasible from
    the start, so that there always is a winner.

    `folder` gets `archive.jsonl` and `state.json` after every generation. With a deterministic
    `predict`, pricing and evaluator, a search that was killed anywhere ends as if it was not
    (`max_seconds` excepted).

    Raises:
        UserError: the constraints cannot be priced or met, the forecasts are not finite, or
            `folder` holds another search.
    """
    limits = resolve(config.constraints, metrics, space)
    anchor = reach(space, metrics, limits, seed=seed)
    store = _Store(folder, _fingerprint(space, searcher, metrics, config, limits, seed))
    state = store.load()
    if state is None:
        archive, generation, n_proposals, earlier_s = Archive(space, tuple(metrics)), 0, 0, 0.0
    else:
        archive = Archive.load(store.archive, space, n_lines=state["generation"])
        generation, n_proposals = state["generation"], state["n_proposals"]
        earlier_s = state["seconds"]
        searcher.load_state(state["searcher"])
    sight = _Sight(space, predict, metrics, limits, archive, rescoring)
    sight.rows(anchor)
    center, spread = _scale(space, predict, seed)
    begin = time.monotonic() - earlier_s

    n_shares = -(-config.n_generations // config.evaluate_every)
    while n_proposals < config.n_predictions:
        if config.max_seconds is not None and time.monotonic() - begin >= config.max_seconds:
            break
        codes = searcher.ask(min(config.generation_size, config.n_predictions - n_proposals))
        if not len(codes):
            break
        rows = sight.rows(codes)
        z = (archive.column("score")[rows] - center) / spread
        costs = {key: archive.column(key)[rows] for key in archive.cost_keys}
        searcher.tell(codes, reward(config.reward, z, ratios(limits, costs, len(rows))))
        generation, n_proposals = generation + 1, n_proposals + len(codes)
        sight.evaluate_up_to(
            config.n_evaluations * (generation // config.evaluate_every) // n_shares
        )
        store.save(archive, searcher, generation, n_proposals, time.monotonic() - begin)
        progress(n_proposals, config.n_predictions, _note(archive))

    mode = sight.rows(searcher.mode()) if isinstance(searcher, _HasMode) else None
    sight.evaluate_up_to(config.n_evaluations)
    archive.append_to(store.archive)
    progress(config.n_predictions, config.n_predictions, _note(archive))
    top = candidates(archive, archive.top(config.top_k, among=sight.eligible()))
    return SearchResult(
        name=config.name,
        winner=top[0],
        top=top,
        fronts={key: candidates(archive, archive.front(key)) for key in archive.cost_keys},
        mode=None if mode is None else candidates(archive, mode)[0],
        limits={limit.key: limit.max for limit in limits},
        n_generations=generation,
        n_proposals=n_proposals,
        n_predictions=len(archive),
        n_evaluations=len(archive.evaluated),
    )


@dataclass(frozen=True)
class _Sight:
    """What the search can find out about archs; everything found out lands in the archive."""

    space: SearchSpace
    predict: Predict
    metrics: Mapping[str, CostMetric]
    limits: tuple[Limit, ...]
    archive: Archive
    rescoring: Rescoring | None

    def rows(self, codes: Codes) -> Rows:
        """Archive rows of `codes`; the unseen ones are priced and forecast first."""
        fresh = self.archive.unseen(codes)
        if len(fresh):
            costs = price(self.metrics, fresh)
            mean, std = _forecast(self.predict, fresh)
            feasible = np.all(ratios(self.limits, costs, len(fresh)) <= 1, axis=1)
            self.archive.add(
                fresh, predicted=mean, predicted_std=std, costs=costs, feasible=feasible
            )
        return self.archive.rows(codes)

    def eligible(self) -> NDArray[np.bool_]:
        """bool [n] of the archive: may win. Feasible, and evaluated if there is an evaluator."""
        feasible = self.archive.column("feasible")
        return feasible if self.rescoring is None else feasible & self._is_evaluated()

    def evaluate_up_to(self, n: int) -> None:
        """Evaluate the best feasible archs that are not yet, until n archs of the archive are."""
        missing = n - len(self.archive.evaluated)
        if self.rescoring is None or missing <= 0:
            return
        among = self.archive.column("feasible") & ~self._is_evaluated()
        rows = self.archive.top(missing, among=among)
        archs = [self.space.arch(codes) for codes in self.archive.column("codes")[rows]]
        evaluations = [self.rescoring.evaluator.evaluate(arch) for arch in archs]
        labels = np.array([self.rescoring.label(evaluation) for evaluation in evaluations])
        mean, std = (self.archive.column(name)[rows] for name in ("predicted", "predicted_std"))
        self.archive.set_supernet(rows, labels, self.rescoring.blend(mean, std, labels))

    def _is_evaluated(self) -> NDArray[np.bool_]:
        return np.asarray(~np.isnan(self.archive.column("supernet")))


@dataclass(frozen=True)
class _Store:
    """The folder of one search. The state names how many lines of the archive belong to it."""

    folder: Path
    fingerprint: str

    @property
    def archive(self) -> Path:
        return self.folder / "archive.jsonl"

    def load(self) -> dict[str, Any] | None:
        path = self.folder / "state.json"
        if not path.exists():
            self.archive.unlink(missing_ok=True)  # of a first generation that was never finished
            return None
        state: dict[str, Any] = read_json(path)
        if not isinstance(state, dict) or state.get("fingerprint") != self.fingerprint:
            raise UserError(
                "this folder holds another search",
                expected="equal settings, space, limits and seed",
                where=self.folder,
                fix="give the search another name, or remove the folder",
            )
        return state

    def save(
        self,
        archive: Archive,
        searcher: Searcher,
        generation: int,
        n_proposals: int,
        seconds: float,
    ) -> None:
        archive.append_to(self.archive)
        state = {
            "schema_version": SCHEMA_VERSION,
            "fingerprint": self.fingerprint,
            "generation": generation,
            "n_proposals": n_proposals,
            "seconds": seconds,
            "searcher": searcher.state(),
        }
        write_json(self.folder / "state.json", state, indent=None)


def _fingerprint(
    space: SearchSpace,
    searcher: Searcher,
    metrics: Mapping[str, CostMetric],
    config: SearchConfig,
    limits: tuple[Limit, ...],
    seed: int,
) -> str:
    settings = config.model_dump(mode="json", exclude={"constraints"})
    bounds = [asdict(limit) for limit in limits]
    kind = type(searcher).__name__
    return content_hash([space.fingerprint, kind, sorted(metrics), settings, bounds, seed])


def _forecast(predict: Predict, codes: Codes) -> tuple[FloatArray, FloatArray]:
    mean, std = predict(codes)
    if not (np.isfinite(mean).all() and np.isfinite(std).all()):
        raise UserError(
            "the predictor returned scores that are not finite",
            found=f"{int((~np.isfinite(mean)).sum())} of {len(mean)}",
            fix="hwnas predictor fit",
        )
    return mean, std


def _scale(space: SearchSpace, predict: Predict, seed: int) -> tuple[float, float]:
    """Mean and spread of the forecasts of uniform archs: the fixed zero and unit of rewards.

    Fixed, so that rewards of all generations and searchers compare; not charged to the budget.
    """
    mean, _ = _forecast(predict, space.sample(rng(seed, "search/scale"), N_SCALE))
    return float(mean.mean()), float(mean.std()) or 1.0


def _note(archive: Archive) -> str:
    feasible = archive.column("feasible")
    best = archive.column("score")[feasible].max()
    return f"best {best:.4f} of {len(archive)} archs, {len(archive.evaluated)} evaluated"
