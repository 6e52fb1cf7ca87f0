"""WPNAS (2203.02086) on NATS-Bench topology: its blend of supernet and predictor, and each alone.

    python benchmarks/wpnas_tabular.py --data $DATA --work /tmp/nats

A supernet of the reduced space (width 8, 2 cells per stage, images of 16 px) is trained on CIFAR-10
by uniform single path. Its scores of 300 random archs, minus the log of the validation loss on
1,000 images with recalibrated BN, are the signal for all three data sets of the benchmark. The
truth is their test accuracy after 200 epochs (the shared half of the cells).

Per data set and seed, every method looks up the accuracies of 100 archs, as if they had been
trained alone; the best of them is its choice:

- `wpnas`: 30 random archs, then 70 that a search selects by a Gaussian process of all labels so
  far, in which the supernet's signal (ridge regression on the 300 scores) is a feature;
- `predictor`: the same without the signal;
- `supernet`: the 100 best by the signal alone;
- `random`, `evolution`: random archs, or those of regularised evolution.

Regret: best accuracy of the half minus that of the choice, in points. `queries`: lookups until the
best arch, 101 if it was not found.

Supernet scores are kept in `--scores` (part of the repository), so the supernet is only trained if
one is missing. Prints JSON with means, standard errors over seeds, and paired differences.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))

from nats_parts.shared_weights import Shared, add_arguments, stated
from predictor_parts.nasbench201 import TARGETS, Half, accuracies
from search_parts.queries import EXPLORATION, QUERIES, SETTINGS

from hwnas.acquisitions import exploration
from hwnas.controller.controller import run_search
from hwnas.controller.sections import SearchConfig
from hwnas.core.env import host_facts
from hwnas.core.rng import rng
from hwnas.interfaces import (
    AccuracyPredictor,
    Evaluation,
    FloatArray,
    PredictorContext,
    Proxy,
    SearcherContext,
)
from hwnas.pipeline.costs import cost_metrics
from hwnas.pipeline.evaluators import TabularRescoring
from hwnas.predictors import gp, ridge
from hwnas.predictors.records import Records
from hwnas.searchers import REGISTRY as SEARCHERS
from hwnas.spaces.arch import Arch
from hwnas.spaces.space import Codes

N_LABELS, N_QUERIES, N_SUPERNET = 30, 100, 300


class Watched(TabularRescoring):
    """Remembers the archs in the order of their first evaluation."""

    def __init__(self, records: Records, build: Callable[[], AccuracyPredictor]) -> None:
        super().__init__(records, records.space, build)
        self.seen: dict[tuple[int, ...], None] = {}

    def evaluate(self, archs: list[Arch]) -> list[Evaluation]:
        """As in the base class."""
        self.seen |= dict.fromkeys(arch.codes for arch in archs)
        return super().evaluate(archs)


class Problem:
    """One data set and seed; every method returns the rows of its lookups, in order."""

    def __init__(self, half: Half, target: str, shared: Shared, seed: int) -> None:
        self.half, self.seed = half, seed
        self.truth = half.columns[target]
        self.records = Records(half.space, half.codes, self.truth, target, 0)
        self.order = rng(seed, "wpnas_tabular").permutation(len(half.codes))
        known = half.codes[self.order[:N_SUPERNET]]
        signal = ridge.build(ridge.Config(), PredictorContext(half.space, seed))
        signal.fit(known, shared(known))
        self.signal = signal

    def searched(self, *, with_signal: bool) -> list[int]:
        """Rows that a search evaluates."""
        space = self.half.space

        def proxy(codes: Codes) -> FloatArray:
            return self.signal.predict(codes)[0]

        proxies: tuple[Proxy, ...] = (proxy,) if with_signal else ()
        watched = Watched(
            self.records,
            lambda: gp.build(
                gp.Config(features="operators"), PredictorContext(space, self.seed, proxies)
            ),
        )
        module = SEARCHERS.load("evolution")
        settings = SETTINGS | {"n_initial": N_LABELS}
        with tempfile.TemporaryDirectory() as folder:
            run_search(
                space,
                module.build(module.Config(), SearcherContext(space, self.seed)),
                predict=None,
                metrics=cost_metrics(space, {}),
                config=SearchConfig(
                    n_predictions=64 * N_QUERIES, n_evaluations=N_QUERIES, **settings
                ),
                seed=self.seed,
                folder=Path(folder),
                rescoring=watched,
                acquisition=exploration.build(EXPLORATION),
            )
        row_of = {tuple(codes): row for row, codes in enumerate(self.half.codes.tolist())}
        return [row_of[codes] for codes in watched.seen][:N_QUERIES]

    def by_signal(self) -> list[int]:
        """Rows of the best archs by the signal."""
        found: list[int] = np.argsort(-self.signal.predict(self.half.codes)[0]).tolist()
        return found[:N_QUERIES]

    def evolved(self) -> list[int]:
        """Rows of regularised evolution."""
        return QUERIES["regularised_evolution"](self.records, N_QUERIES, self.seed)[:N_QUERIES]


METHODS: dict[str, Callable[[Problem], list[int]]] = {
    "wpnas": lambda problem: problem.searched(with_signal=True),
    "predictor": lambda problem: problem.searched(with_signal=False),
    "supernet": Problem.by_signal,
    "random": lambda problem: problem.order[:N_QUERIES].tolist(),
    "evolution": Problem.evolved,
}


def compared(found: dict[str, list[tuple[float, int]]]) -> dict[str, Any]:
    """Regrets and queries over seeds, and the differences of regrets to those of `wpnas`."""
    columns = {name: np.array(values).T for name, values in found.items()}
    return {
        name: {
            "regret": stated(regrets),
            "minus_wpnas": stated(regrets - columns["wpnas"][0]),
            "queries": float(np.median(queries)),
        }
        for name, (regrets, queries) in columns.items()
    }


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    parser.add_argument("--seeds", type=int, default=10)
    options = parser.parse_args()
    torch.set_num_threads(1)
    half, shared, result = accuracies(options.data), Shared(options), {}
    for target in TARGETS:
        found: dict[str, list[tuple[float, int]]] = {name: [] for name in METHODS}
        for seed in range(options.seeds):
            problem = Problem(half, target, shared, seed)
            best = float(problem.truth.max())
            for name, method in METHODS.items():
                seen = problem.truth[method(problem)]
                hit = np.flatnonzero(seen >= best)
                queries = int(hit[0]) + 1 if len(hit) else N_QUERIES + 1
                found[name].append((100 * (best - float(seen.max())), queries))
            shown = {name: round(values[-1][0], 2) for name, values in found.items()}
            print(target, seed, shown, file=sys.stderr, flush=True)
        result[target] = compared(found)
    sizes = {"labels": N_LABELS, "queries": N_QUERIES, "supernet_scores": N_SUPERNET}
    print(json.dumps({"host": host_facts(), **sizes, "steps": options.steps, **result}))


if __name__ == "__main__":
    main()
