"""One search for many devices: every arch is scored once, and each device keeps its own best archs.

The score of an arch does not depend on the device, only its costs do. So this is one evolution with
a niche per device (MAP-Elites, Mouret and Clune, 1504.04909): the best archs so far within the
limits of the device. The children of all niches are scored together, and each enters every niche
in which it is among the best. Half of the children have a parent from another niche.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from hwnas.controller.archive import Archive, Rows
from hwnas.controller.constraints import Costs, Limit, price, ratios, reach
from hwnas.controller.result import Candidate, candidates
from hwnas.controller.scorer import Predict, Scorer
from hwnas.controller.storage import Progressed, SearchFolder
from hwnas.core.progress import Progress, silent
from hwnas.core.rng import rng
from hwnas.core.store import content_hash
from hwnas.interfaces import CostMetric
from hwnas.spaces.space import Codes, SearchSpace

__all__ = ["search_per_device"]

MOST_BUDGETS = 4  # proposals for all devices, in budgets of a search for one
NICHE = 16  # archs that a device keeps
TOURNAMENT = 4  # archs that are drawn for a parent; the best of them becomes the parent
FROM_OTHERS = 0.5  # share of children whose second parent is from any niche
N_CHILDREN, LEAST_CHILDREN = 20, 128  # per generation: for each device, and in all
MAX_REPAIRS = 4  # further changes of children that are already in the archive
SAVE_EVERY_S = 2.0


def search_per_device(
    space: SearchSpace,
    *,
    predict: Predict,
    metrics: Mapping[str, CostMetric],
    limits: Mapping[str, Sequence[Limit]],
    n_predictions: int,
    seed: int,
    folder: Path,
    progress: Progress = silent,
) -> tuple[dict[str, Candidate], int]:
    """Winners by device, with all costs of `metrics`; and the number of scored archs.

    The winner of a device is the best of all scored archs within its limits. The number of
    proposals is `n_predictions` per device, but at most `MOST_BUDGETS` times in all. A killed
    search resumes from `folder`, as in `run_search`.

    limits: maps a device to all limits that hold on it.

    Raises:
        UserError: the limits of a device cannot be met, predictions are not finite, or `folder`
            contains another search, or one with another `predict`.
    """
    every = tuple({limit.key: limit for own in limits.values() for limit in own}.values())
    keys = tuple(limit.key for limit in every) or ("macs",)
    anchors = [reach(space, metrics, own, seed=seed) for own in limits.values()]
    n = n_predictions * min(len(limits), MOST_BUDGETS)
    size = min(n, max(LEAST_CHILDREN, N_CHILDREN * len(limits)))
    told = [[asdict(limit) for limit in own] for own in limits.values()]
    named = ["per device", space.fingerprint, list(limits), told, n, size, seed]
    store = SearchFolder(folder, content_hash(named))
    stored = store.load(space)
    archive, done = (Archive(space, keys), None) if stored is None else stored
    scorer = Scorer(space, predict, metrics, every, archive, None, seed)
    if len(archive):
        scorer.check_resumed(folder)
    niches = _Niches(archive, [*limits.values()])
    scorer.rows(np.concatenate(anchors))
    begin = saved = time.monotonic()
    for generation in range(0 if done is None else done.generation, -(-n // size)):
        niches.update()
        stream = rng(seed, "search/per_device", generation)
        n_made = min(n, (generation + 1) * size)
        n_new = n_made - generation * size
        scorer.rows(
            niches.children(n_new, stream) if generation else space.sample(n_new, rng=stream)
        )
        if n_made == n or time.monotonic() - saved >= SAVE_EVERY_S:
            saved = time.monotonic()
            sizes = len(archive), 0, generation + 1, n_made
            store.save(archive, Progressed(*sizes, saved - begin, {}))
        progress(n_made, n, f"{n_made:,} of {n:,} proposals for {len(limits)} devices")
    niches.update()
    rows = np.array([best[0] for best in niches.rows])
    priced = price(metrics, archive.column("codes")[rows])
    return dict(zip(limits, candidates(archive, rows, priced, {}), strict=True)), len(archive)


class _Niches:
    """The rows of an archive that are best on each device, best first; `rows`: [devices, k]."""

    def __init__(self, archive: Archive, limits: Sequence[Sequence[Limit]]) -> None:
        self._archive, self._limits, self._n_seen = archive, limits, 0
        self.rows: Rows = np.empty((len(limits), 0), dtype=np.intp)

    def update(self) -> None:
        """Takes the new archs of the archive into account; older ones win ties."""
        new = np.arange(self._n_seen, len(self._archive))
        self._n_seen = len(self._archive)
        kept = []
        for own, limits in zip(self.rows, self._limits, strict=True):
            both = np.concatenate([own, new])
            costs: Costs = {one.key: self._archive.column(one.key)[both] for one in limits}
            excess = np.maximum(ratios(limits, costs, len(both)) - 1, 0).sum(axis=1)
            best = np.lexsort((-self._archive.column("score")[both], excess))
            kept.append(both[best[:NICHE]])
        self.rows = np.stack(kept)

    def children(self, n: int, stream: np.random.Generator) -> Codes:
        """n children [n, d], equally many of every niche, each with one changed choice.

        The first ones are uniform archs.
        """
        space, (n_devices, size) = self._archive.space, self.rows.shape
        if size < NICHE:
            return space.sample(n, rng=stream)
        device, codes = np.arange(n) % n_devices, self._archive.column("codes")
        other = np.where(stream.random(n) < FROM_OTHERS, stream.integers(n_devices, size=n), device)

        def parents(of: Rows) -> Codes:
            drawn = stream.integers(size, size=(TOURNAMENT, n)).min(axis=0)
            chosen: Codes = codes[self.rows[of, drawn]]
            return chosen

        mixed = space.crossover(parents(device), parents(other), stream)
        children = space.mutate(mixed, stream, 0.0)
        for _ in range(MAX_REPAIRS):
            repeats = self._archive.knows(children)
            children[repeats] = space.mutate(children[repeats], stream)
        return children
