"""WPNAS (2203.02086) on NATS-Bench topology: its blend of supernet and predictor, and each alone.

    python benchmarks/wpnas_tabular.py --data $DATA --work /tmp/wpnas

A supernet of the reduced space (width 8, 2 cells per stage, images of 16 px) is trained on CIFAR-10
by uniform single path. Its scores, minus the log of the validation loss on 1,000 images with
recalibrated BN, are the signal for all three data sets of the benchmark, whose test accuracies
after 200 epochs are the truth (the shared half of the cells).

Per data set and seed, every method may train 31 archs alone: their true accuracies are looked up,
and the best of them is its choice.

- `wpnas`: 30 random archs are labels. The predictor learns from supernet scores of 100 other random
  archs, then from the labels; a policy searches its predictions; 70 archs are scored by the
  supernet, and blended scores (weight from held-out labels) select the 31st arch.
- `predictor`: the same 30 labels; the best prediction in the half is the 31st arch.
- `supernet`: the 31 best of 100 random archs by supernet score.
- `random`, `evolution`: 31 random archs, or those of regularised evolution.

Regret: best accuracy of the half minus that of the choice, in points. `random_100` and
`evolution_100` train 100 archs alone: more than three times the budget, for comparison.

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

from nats_parts.shared_weights import Shared, add_arguments
from predictor_parts.nasbench201 import TARGETS, Half, accuracies
from search_parts.queries import QUERIES

from hwnas.controller.controller import run_search
from hwnas.controller.scorer import Rescoring
from hwnas.controller.sections import SearchConfig
from hwnas.core.env import host_facts
from hwnas.core.rng import rng
from hwnas.interfaces import (
    AccuracyPredictor,
    Evaluation,
    FloatArray,
    PredictorContext,
    SearcherContext,
)
from hwnas.pipeline.costs import cost_metrics
from hwnas.pipeline.evaluators import scores_of
from hwnas.predictors import REGISTRY as PREDICTORS
from hwnas.predictors.blend import Blend, blend, fit_blend
from hwnas.predictors.evaluate import cross_fitted
from hwnas.predictors.records import Records
from hwnas.predictors.transfer import LabelSet, TransferPredictor
from hwnas.searchers import REGISTRY as SEARCHERS
from hwnas.spaces.arch import Arch
from hwnas.spaces.space import Codes

N_LABELS, N_EVALUATIONS, N_SUPERNET = 30, 70, 100
N_TRAINED = N_LABELS + 1
TINY_ERROR = 1e-6


class Blended(Rescoring):
    """Evaluations by the supernet, blended with predictions; only cells of the half can win."""

    def __init__(self, half: Half, shared: Shared, fitted: Blend) -> None:
        self._space, self._shared, self._fitted = half.space, shared, fitted
        self._keys = set(half.space.keys(half.codes))

    def evaluate(self, archs: list[Arch]) -> list[Evaluation]:
        """Scores as losses of evaluations."""
        scores = self._shared(self._space.codes(archs))
        return [
            Evaluation(arch, 0.0, "supernet", "val", n_images=1000, seed=0, val_loss=np.exp(-score))
            for arch, score in zip(archs, scores.tolist(), strict=True)
        ]

    def label(self, evaluation: Evaluation) -> float:
        """Minus the log of the loss."""
        return float(scores_of([evaluation])[0])

    def blend(self, mean: FloatArray, std: FloatArray, label: FloatArray) -> FloatArray:
        """The reward of WPNAS."""
        return blend(self._fitted, label, mean)

    def admits(self, codes: Codes) -> Any:
        """Whether the cells have a true accuracy."""
        return np.array([key in self._keys for key in self._space.keys(codes)], dtype=bool)


class Problem:
    """One data set and seed."""

    def __init__(self, half: Half, target: str, shared: Shared, name: str, seed: int) -> None:
        self.half, self.shared, self.seed = half, shared, seed
        self.truth = half.columns[target]
        self.scores = -np.log(np.maximum(1 - self.truth, TINY_ERROR))
        self._predictor = name
        self.records = Records(half.space, half.codes, self.truth, target, 0)
        order = rng(seed, "wpnas_tabular").permutation(len(half.codes))
        self.labelled = order[:N_LABELS]
        self.others = order[N_LABELS : N_LABELS + N_SUPERNET]

    def _build(self, proxies: Any = ()) -> AccuracyPredictor:
        module = PREDICTORS.load(self._predictor)
        context = PredictorContext(self.half.space, self.seed, tuple(proxies))
        return module.build(module.Config(), context)

    def wpnas(self) -> float:
        """With the winner of a search by blended scores."""
        codes, half = self.half.codes, self.half
        inherited = LabelSet("supernet", codes[self.others], self.shared(codes[self.others]))

        def build() -> AccuracyPredictor:
            return TransferPredictor(self._build, [inherited], seed=self.seed)

        known, truth = codes[self.labelled], self.scores[self.labelled]
        held_out = cross_fitted(build, known, truth, seed=self.seed)
        fitted = fit_blend(self.shared(known), held_out, truth)
        predictor = build()
        predictor.fit(known, truth)
        module = SEARCHERS.load("policy_gradient")
        searcher = module.build(
            module.Config(baseline="self_critical"), SearcherContext(half.space, self.seed)
        )
        with tempfile.TemporaryDirectory() as folder:
            found = run_search(
                half.space,
                searcher,
                predict=predictor.predict,
                metrics=cost_metrics(half.space, {}),
                config=SearchConfig(n_predictions=6400, n_evaluations=N_EVALUATIONS),
                seed=self.seed,
                folder=Path(folder),
                rescoring=Blended(half, self.shared, fitted),
            )
        row_of = {key: row for row, key in enumerate(half.space.keys(codes))}
        winner = half.space.keys(half.space.codes([found.winner.arch]))[0]
        return self._best([*self.labelled, row_of[winner]])

    def _best(self, rows: Any) -> float:
        """Accuracy of the best of the archs that are trained alone."""
        return float(self.truth[rows].max())

    def predictor(self) -> float:
        """With the best prediction of a predictor of the labels alone."""
        predictor = self._build()
        predictor.fit(self.half.codes[self.labelled], self.scores[self.labelled])
        return self._best([*self.labelled, predictor.predict(self.half.codes)[0].argmax()])

    def supernet(self) -> float:
        """The best of random archs by supernet score."""
        order = self.shared(self.half.codes[self.others]).argsort()
        return self._best(self.others[order[-N_TRAINED:]])

    def random(self, n: int) -> float:
        """Random archs."""
        return self._best(rng(self.seed, "wpnas_tabular").permutation(len(self.truth))[:n])

    def evolution(self, n: int) -> float:
        """Archs of regularised evolution."""
        return self._best(QUERIES["regularised_evolution"](self.records, n, self.seed)[:n])


METHODS: dict[str, Callable[[Problem], float]] = {
    "wpnas": Problem.wpnas,
    "predictor": Problem.predictor,
    "supernet": Problem.supernet,
    "random": lambda problem: problem.random(N_TRAINED),
    "evolution": lambda problem: problem.evolution(N_TRAINED),
    "random_100": lambda problem: problem.random(N_LABELS + N_EVALUATIONS),
    "evolution_100": lambda problem: problem.evolution(N_LABELS + N_EVALUATIONS),
}


def compared(regrets: dict[str, FloatArray]) -> dict[str, Any]:
    """Mean regrets, and the differences to those of `wpnas`, with standard errors over seeds."""

    def stated(values: FloatArray) -> dict[str, float]:
        error = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0
        return {"mean": round(float(values.mean()), 3), "standard_error": round(error, 3)}

    return {
        name: {**stated(values), "minus_wpnas": stated(values - regrets["wpnas"])}
        for name, values in regrets.items()
    }


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    parser.add_argument("--predictor", default="gcn")
    parser.add_argument("--seeds", type=int, default=10)
    options = parser.parse_args()
    torch.set_num_threads(1)
    half, shared, found = accuracies(options.data), Shared(options), {}
    for target in TARGETS:
        regrets: dict[str, list[float]] = {name: [] for name in METHODS}
        for seed in range(options.seeds):
            problem = Problem(half, target, shared, options.predictor, seed)
            for name, method in METHODS.items():
                regrets[name].append(100 * (float(problem.truth.max()) - method(problem)))
            shown = {name: round(values[-1], 2) for name, values in regrets.items()}
            print(target, seed, shown, file=sys.stderr, flush=True)
        found[target] = compared({name: np.array(values) for name, values in regrets.items()})
    sizes = {"labels": N_LABELS, "evaluations": N_EVALUATIONS, "steps": options.steps}
    print(json.dumps({"host": host_facts(), "predictor": options.predictor, **sizes, **found}))


if __name__ == "__main__":
    main()
