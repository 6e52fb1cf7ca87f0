"""`hwnas.search`: the search of a run folder, or of any space with a custom score."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, overload

from numpy.typing import ArrayLike

from hwnas.api.options import refuse_both
from hwnas.api.result import (
    Folder,
    Listing,
    ProgressFor,
    Settings,
    listed,
    no_progress,
)
from hwnas.api.search_arguments import (
    check_arguments,
    constraints_of,
    estimators_of,
    scores_of,
    searcher_of,
)
from hwnas.api.search_devices import search_devices
from hwnas.api.search_result import Found, FoundPerDevice, found_of
from hwnas.api.stage import bring_up_to_date, of_search
from hwnas.api.table import Table
from hwnas.controller.controller import run_search
from hwnas.controller.sections import SearchConfig
from hwnas.core.errors import UserError
from hwnas.core.stats import standard_error
from hwnas.interfaces import PERPLEXITY, TOP1, quality_of
from hwnas.pipeline.costs import cost_metrics, with_chances
from hwnas.pipeline.evaluators import score_unit
from hwnas.pipeline.project import Project
from hwnas.pipeline.winners import winners_by_device
from hwnas.spaces.load import require_space
from hwnas.spaces.space import Codes, SearchSpace
from hwnas.studies.winner_verdict import verdict_of_search

__all__ = [
    "Found",
    "FoundPerDevice",
    "Score",
    "search",
    "search_changes",
    "search_run",
    "search_space",
]

GENERATION = 128  # proposals between two updates of the searcher

Score = Callable[[Codes], ArrayLike]
"""Scores [n] of archs given as codes, int16 [n, d]; higher is better, all finite.

It is called with many archs at a time: first with 256 random archs, which set the scale of rewards,
then once with every proposed arch. A search that is resumed from a folder scores 16 archs again.
`space.arch(row)` converts a row to an `Arch`.
"""


@overload
def search(
    folder: Folder,
    /,
    *,
    config: str | None = None,
    name: str | None = None,
    devices: Sequence[str] | None = None,
    settings: Settings = None,
    progress: ProgressFor = no_progress,
) -> Listing: ...


@overload
def search(
    space: SearchSpace,
    /,
    *,
    score: Score,
    limits: Mapping[str, float] | None = None,
    tables: Sequence[Table] = (),
    per_device: Literal[False] = False,
    searcher: str | Mapping[str, Any] = "evolution",
    budget: int = 12_800,
    seed: int = 0,
    folder: Folder | None = None,
    progress: ProgressFor = no_progress,
) -> Found: ...


@overload
def search(
    space: SearchSpace,
    /,
    *,
    score: Score,
    limits: Mapping[str, float] | None = None,
    tables: Sequence[Table] = (),
    per_device: Literal[True],
    budget: int = 12_800,
    seed: int = 0,
    folder: Folder | None = None,
    progress: ProgressFor = no_progress,
) -> FoundPerDevice: ...


def search(where: SearchSpace | Folder, /, **arguments: Any) -> Found | FoundPerDevice | Listing:
    """Finds the best archs under limits, of a run folder or of a space with a custom score.

    `search(folder, *, config, name, devices, settings, progress)` brings stage `search` of a run
    folder up to date, as `hwnas search` does, and returns the winners as rows.

    `search(space, *, score, limits, tables, per_device, searcher, budget, seed, folder, progress)`
    maximises `score`, a function from codes [n, d] to n numbers, and returns a `Found`:

    - limits: maximum cost by metric key: `macs`, `params`, `weight_bytes`, `peak_memory_bytes`,
      `latency_ms@DEVICE`, `latency_p95_ms@DEVICE`, `energy_mj@DEVICE`.
    - tables: latency tables (also names and files) that cover the space, one per device.
    - per_device [False]: a winner for the device of each table, within the limits on that device
      (returns a `FoundPerDevice`). Tables that cannot be used are skipped.
    - searcher [`evolution`]: a name from `hwnas.list("searchers")`, or its settings with
      `name`; not with `per_device`, which has its own (`hwnas.controller.per_device`).
    - budget [12800]: number of proposals; repeats count, but are not scored again. With
      `per_device`: per device, but at most four times as many in all.
    - seed [0]: seed of the searcher.
    - folder: stores the archive, from which an interrupted search resumes, if `score` is
      deterministic.

    Raises:
        UserError: a limit that cannot be priced or met, a table that does not cover the space, an
            unknown searcher, `searcher` with `per_device`, scores that are not n finite numbers, or
            a folder of another search.
    """
    if isinstance(where, SearchSpace):
        if not arguments.pop("per_device", False):
            return search_space(where, **arguments)
        if "searcher" in arguments:
            raise UserError(
                "a search for each device has a searcher of its own",
                expected="per_device=True without searcher",
                found=f"searcher={arguments['searcher']!r}",
                where="searcher",
                fix="leave out searcher, or search for one device at a time",
            )
        return search_devices(where, **arguments)
    if "score" in arguments:
        require_space(where)
    return search_run(where, **arguments)


def search_run(
    folder: Folder,
    *,
    config: str | None = None,
    name: str | None = None,
    devices: Sequence[str] | None = None,
    settings: Settings = None,
    progress: ProgressFor = no_progress,
) -> Listing:
    """Finds the best archs of a run under its constraints, and runs random search for comparison.

    name: name of an existing or new search; default: the last one.
    devices: devices that each get a front and a winner, in one search.

    `facts["verdict"]`: whether the winner is better than that of random search, as a sentence and
    data; None if that cannot be determined.
    """
    return bring_up_to_date(
        folder,
        "search",
        config=config,
        changes=search_changes(devices, settings, name),
        progress=progress,
        found=_winners,
    )


def search_changes(
    devices: Sequence[str] | None, settings: Settings, name: str | None = None
) -> dict[str, Any]:
    """Settings of the search `name` with a winner for each of `devices`.

    Raises:
        UserError: the settings contradict the arguments.
    """
    for key in ("devices", "search.per_device"):
        refuse_both("--devices", devices, key, settings)
    chosen = {} if devices is None else {"devices": listed(devices), "search.per_device": True}
    return of_search(name, chosen | dict(settings or {}))


def _winners(project: Project) -> Listing:
    found = {
        f"winner on {device}" if project.config.search.per_device else "winner": candidate
        for device, candidate in winners_by_device(project).items()
    }
    found["random search"] = project.files.baseline.result.read().winner
    is_recorded = project.config.search.evaluator.records is not None
    n = None if is_recorded else project.source.info.n_images["val"]
    rows, shown = [], []
    score, quality = f"score [{score_unit(project)}]", quality_of(project.space)
    for role, c in found.items():
        top1 = None if c.accuracy is None else c.accuracy.top1
        error = None if top1 is None or n is None else standard_error(top1, n)
        known = {"network": role, "score": c.score, "top1": top1, "top1_se": error}
        if quality == PERPLEXITY:
            perplexity = None if c.accuracy is None else c.accuracy.perplexity
            known = {"network": role, "score": c.score, "perplexity": perplexity}
        rows.append({**known, **c.costs})
        text = quality.text(top1 if quality == TOP1 else perplexity, n)
        column = f"validation {quality.name}"
        shown.append({"network": role, score: c.score, column: text, **c.costs})
    verdict = verdict_of_search(project)
    facts = {"verdict": None if verdict is None else verdict.summary()}
    return Listing(rows, shown=shown, facts=facts)


def search_space(
    space: SearchSpace,
    *,
    score: Score,
    limits: Mapping[str, float] | None = None,
    tables: Sequence[Table] = (),
    searcher: str | Mapping[str, Any] = "evolution",
    budget: int = 12_800,
    seed: int = 0,
    folder: Folder | None = None,
    progress: ProgressFor = no_progress,
) -> Found:
    """The best archs of a space by a custom score, under limits; arguments are those of `search`.

    Raises:
        UserError: as in `search`.
    """
    check_arguments(score, budget, seed, folder)
    estimators = estimators_of(space, tables)
    config = SearchConfig(
        constraints=constraints_of(limits),
        n_predictions=int(budget),
        generation_size=max(2, min(GENERATION, int(budget))),
    )
    with TemporaryDirectory() if folder is None else nullcontext(str(folder)) as place:
        found = run_search(
            space,
            searcher_of(searcher, space, seed),
            predict=lambda codes: scores_of(score, codes),
            metrics=with_chances(cost_metrics(space, estimators), config.constraints, estimators),
            config=config,
            seed=seed,
            folder=Path(place),
            progress=progress("search"),
        )
    return found_of(space, found)
