"""Fitting the search space with a GCN (2004.08423) on NATS-Bench topology: raw score against fit.

    python benchmarks/gcn_fit_tabular.py --data $DATA --work /tmp/nats

A supernet of the reduced space scores 200 random cells of the shared half (see `wpnas_tabular.py`:
the same supernet and scores). A GCN is fitted to these noisy scores, and its predictions of all
15,625 cells are a lookup table. Compared are, with the test accuracies of full-size networks after
200 epochs on three data sets:

- Kendall's tau of the raw scores and of the fit, on the 200 cells, and on 200 others whose scores
  the fit has not seen;
- regret in points of one choice: the best raw score, the best entry of the table, and the cell
  that a segment-wise search with 6 super-cells (or 1) finds by the fit with 1,500 predictions.

Prints JSON with means and standard errors over seeds, and paired differences from the raw score.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))

from nats_parts.shared_weights import Shared, add_arguments, stated
from predictor_parts.nasbench201 import TARGETS, Half, accuracies

from hwnas.core.env import host_facts
from hwnas.core.progress import silent
from hwnas.core.rng import rng
from hwnas.core.stats import kendall_tau
from hwnas.interfaces import PredictorContext, SearcherContext
from hwnas.predictors import REGISTRY as PREDICTORS
from hwnas.predictors.lookup import ScoreTable, table_of_space
from hwnas.searchers import segments
from hwnas.spaces.space import Codes

N_LABELS, N_OTHERS, N_PREDICTIONS, GENERATION = 200, 200, 1500, 100


def by_segments(half: Half, table: ScoreTable, keep: int, seed: int) -> Codes:
    """The best cell of the half that a segment-wise search meets: [1, d]."""
    config = segments.Config(keep=keep, candidates=96, completions=4)
    searcher = segments.build(config, SearcherContext(half.space, seed))
    known, best, found = set(half.space.keys(half.codes)), -np.inf, half.codes[:1]
    for _ in range(N_PREDICTIONS // GENERATION):
        codes = searcher.ask(GENERATION)
        scores = table.predict(codes)[0]
        searcher.tell(codes, scores)
        inside = np.array([key in known for key in half.space.keys(codes)])
        if inside.any() and scores[inside].max() > best:
            best = float(scores[inside].max())
            found = codes[inside][scores[inside].argmax()][None]
    return found


def of_seed(half: Half, shared: Shared, name: str, seed: int) -> dict[str, dict[str, float]]:
    """Numbers of one seed, by target."""
    order = rng(seed, "gcn_fit_tabular").permutation(len(half.codes))
    own = order[:N_LABELS]
    fixed = rng(0, "gcn_fit_tabular/others").permutation(len(half.codes))
    others = fixed[~np.isin(fixed, own)][:N_OTHERS]
    raw = {"own": shared(half.codes[own]), "others": shared(half.codes[others])}
    module = PREDICTORS.load(name)
    predictor = module.build(module.Config(), PredictorContext(half.space, seed))
    predictor.fit(half.codes[own], raw["own"])
    table = table_of_space(predictor.predict, half.space, source=name, progress=silent)
    fitted = table.predict(half.codes)[0]
    row_of = {key: row for row, key in enumerate(half.space.keys(half.codes))}
    picks = {"raw": own[raw["own"].argmax()], "table": fitted.argmax()}
    for keep in (6, 1):
        (key,) = half.space.keys(by_segments(half, table, keep, seed))
        picks[f"segments, keep {keep}"] = row_of[key]
    found = {}
    for target in TARGETS:
        truth = half.columns[target]
        found[target] = {
            "tau, own, raw": kendall_tau(raw["own"], truth[own]),
            "tau, own, fit": kendall_tau(fitted[own], truth[own]),
            "tau, others, raw": kendall_tau(raw["others"], truth[others]),
            "tau, others, fit": kendall_tau(fitted[others], truth[others]),
        } | {f"regret, {pick}": 100 * (truth.max() - truth[row]) for pick, row in picks.items()}
    return found


def compared(rows: list[dict[str, float]]) -> dict[str, Any]:
    """Every number over seeds, and its difference from that of the raw score."""
    columns = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    return {
        name: {
            **stated(values),
            "minus_raw": stated(values - columns[f"{name.rsplit(', ', 1)[0]}, raw"])
            if name.startswith("tau")
            else stated(values - columns["regret, raw"]),
        }
        for name, values in columns.items()
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
    half, shared, rows = accuracies(options.data), Shared(options), []
    for seed in range(options.seeds):
        rows.append(of_seed(half, shared, options.predictor, seed))
        print(seed, json.dumps(rows[-1]), file=sys.stderr, flush=True)
    found = {target: compared([row[target] for row in rows]) for target in TARGETS}
    print(json.dumps({"host": host_facts(), "predictor": options.predictor, **found}))


if __name__ == "__main__":
    main()
