"""Rank quality of every predictor on records of trained nets, and the noise and few-shot tests.

    python benchmarks/predictors.py --data $DATA --out predictors.jsonl --seeds 10

Each cell (file, number of labels, predictor) is a line of `--out`, written when it is done; run the
same command again after an interruption and it goes on where it stopped. The whole table is printed
as JSON at the end, with `--table` as Markdown. `--files` and `--predictors` choose some of the
rank cells.

noise: labels = truth + noise of the truth's own standard deviation (lowest 5 % left out of it), as
supernet scores are; the fit must rank better than the labels it learned from (2004.08423).
few_shot: a supernet score of tau 0.42 and 30 true labels, blended with a weight from held-back
labels (2203.02086). speed: archs per second of processor time that the distilled predictor scores.

--n: other numbers of labels. --losses: the losses of gcn instead of other predictors:

    python benchmarks/predictors.py --data $DATA --out losses.jsonl --n 100 --losses

--only proxies, --only warm_start: `predictor_parts` says what these measure. Here --n and
--predictors choose their cells. A line per cell is printed, and for warm starts how many labels
give the same tau without the other labels.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np

from hwnas.core.rng import rng
from hwnas.core.stats import kendall_tau
from hwnas.core.store import append_jsonl, read_jsonl
from hwnas.interfaces import PredictorContext
from hwnas.predictors import REGISTRY, distilled, gcn
from hwnas.predictors.blend import blend, few_shot_blend
from hwnas.predictors.recipe import LossName
from hwnas.studies.compare_predictors import (
    COPIES,
    COSTS,
    Labels,
    labels_of_file,
    measure,
    measure_cost,
)

sys.path.insert(0, str(Path(__file__).parent))

from predictor_parts import proxies, warm_start
from predictor_parts.cells import Cell, Cells

PARTS = {"proxies": proxies.cells, "warm_start": warm_start.cells}
FILES = {
    "nas_bench_macro": "nas_bench_macro/cifar10.json",
    "ofa_mbv3_imagenet": "ofa_mbv3_imagenet/records.json",
    "nasbench201": "nasbench201_accuracy/accuracy.csv",
    "accel_nasbench": "accel_nasbench/records.csv",
    "darts_random214": "darts_random214/records.json",
    "transnas_micro": "transnas_micro/records.csv",
    "nasbench_nlp": "nasbench_nlp_wikitext2/records.json",
}
DEFAULT_FILES = ("nas_bench_macro", "ofa_mbv3_imagenet", "nasbench201", "accel_nasbench")
SIZES = ("50", "100", "400", "half")
SWITCHES = ("warp", "mape", "held_out")
LOSSES = {
    **{f"gcn {loss}": {"training": {"loss": loss}} for loss in get_args(LossName)},
    **{f"gcn then {late}": {"training": {"switch": late}} for late in SWITCHES},
}


def cells(data: Path, seeds: int, names: list[str], sizes: list[str], files: list[str]) -> Cells:
    """The key of every rank cell, and the function that measures it."""
    for size in sizes:
        for file in files:
            for name in names:
                key = {"test": "ranks", "file": file, "size": size, "predictor": name}
                run = partial(ranks, data / FILES[file], size, name, seeds)
                yield key | {"seeds": seeds}, run


def other_cells(data: Path, seeds: int) -> Cells:
    """The noise, few-shot and speed tests."""
    macro = data / FILES["nas_bench_macro"]
    yield {"test": "noise", "seeds": seeds}, partial(noise, macro, seeds)
    yield {"test": "few_shot", "seeds": seeds}, partial(few_shot, macro, seeds)
    for file in DEFAULT_FILES:
        path = FILES[file]
        yield {"test": "speed", "file": file}, partial(speed, data / path)


def ranks(path: Path, size: str, name: str, seeds: int) -> Cell:
    """Fit on `size` records, rank all others."""
    labels = labels_of_file(path)
    n_fit = len(labels.codes) // 2 if size == "half" else int(size)
    if name in COSTS:
        return measure_cost(name, labels, n_fit=n_fit, n_seeds=seeds).row()
    predictor, settings = ("gcn", LOSSES[name]) if name in LOSSES else (name, None)
    how: Any = {"n_fit": n_fit, "n_seeds": seeds, "settings": settings}
    return measure(predictor, labels, progress=lambda *_: None, **how).row()


def noisy(labels: Labels, factor: float, seed: int) -> np.ndarray:
    """Scores with independent noise of `factor` standard deviations of the truth."""
    truth = labels.scores
    std = truth[truth > np.quantile(truth, 0.05)].std()
    return truth + factor * std * rng(seed, "benchmarks/noise").normal(size=len(truth))


def noise(path: Path, seeds: int, n_fit: int = 400) -> Cell:
    """Noise 1.0: Kendall's tau of the labels, and of the fit on its own and on other archs."""
    labels, rows = labels_of_file(path), []
    for seed in range(seeds):
        order = rng(seed, "benchmarks/split").permutation(len(labels.codes))
        own, others = order[:n_fit], order[n_fit:]
        seen = noisy(labels, 1.0, seed)
        predictor = gcn.build(gcn.Config(), PredictorContext(labels.space, seed))
        predictor.fit(labels.codes[own], seen[own])
        taus = [kendall_tau(seen, labels.scores)]
        for part in (own, others):
            taus.append(kendall_tau(predictor.predict(labels.codes[part])[0], labels.scores[part]))
        rows.append(taus)
    raw, on_own, on_others = np.mean(rows, axis=0).tolist()
    return {"raw_tau": raw, "fitted_archs_tau": on_own, "other_archs_tau": on_others}


def few_shot(path: Path, seeds: int, n_fit: int = 30) -> Cell:
    """Kendall's tau of the supernet's score, of the predictor, and of their blend."""
    labels, rows = labels_of_file(path), []
    for seed in range(seeds):
        order = rng(seed, "benchmarks/split").permutation(len(labels.codes))
        few, others = order[:n_fit], order[n_fit:]
        supernet = noisy(labels, 1.5, seed)

        def build(seed: int = seed) -> Any:
            return gcn.build(gcn.Config(), PredictorContext(labels.space, seed))

        predictor, fitted = few_shot_blend(
            build, labels.codes[few], labels.scores[few], supernet[few], seed=seed
        )
        predicted = predictor.predict(labels.codes[others])[0]
        both = blend(fitted, supernet[others], predicted)
        rows.append(
            [kendall_tau(s, labels.scores[others]) for s in (supernet[others], predicted, both)]
        )
    of_supernet, of_predictor, of_blend = np.mean(rows, axis=0).tolist()
    return {"supernet_tau": of_supernet, "predictor_tau": of_predictor, "blend_tau": of_blend}


def speed(path: Path, n_fit: int = 100, n_archs: int = 200_000) -> Cell:
    """Archs per second of processor time, and how alike student and teacher rank unseen archs."""
    labels = labels_of_file(path)
    space = labels.space
    order = rng(0, "benchmarks/split").permutation(len(labels.codes))
    student = distilled.build(distilled.Config(), PredictorContext(space, 0))
    teacher = gcn.build(gcn.Config(), PredictorContext(space, 0))
    found: Cell = {}
    for name, predictor in (("gcn", teacher), ("distilled", student)):
        begin = time.process_time()
        predictor.fit(labels.codes[order[:n_fit]], labels.scores[order[:n_fit]])
        found[f"{name}_fit_cpu_s"] = time.process_time() - begin
    archs = space.sample(n_archs, rng=rng(0, "benchmarks/archs"))
    for name, predictor, n in (("gcn", teacher, n_archs // 50), ("distilled", student, n_archs)):
        begin = time.process_time()
        predictor.predict(archs[:n])
        found[f"{name}_archs_per_s"] = n / (time.process_time() - begin)
    rest = order[n_fit:]
    scores = [p.predict(labels.codes[rest])[0] for p in (teacher, student)]
    found["gcn_tau"], found["distilled_tau"] = (kendall_tau(s, labels.scores[rest]) for s in scores)
    found["agreement_tau"] = kendall_tau(*scores)
    return found


def markdown(rows: list[Cell]) -> str:
    """The rank cells as one table: a row per file and predictor, a column per size.

    Kendall's tau / N@1 / N@10 / precision@10 / regret, means over seeds.
    """
    ranks = {(r["file"], r["predictor"], r["size"]): r for r in rows if r["test"] == "ranks"}
    sizes = list(dict.fromkeys(key[2] for key in ranks))
    lines = ["| records | predictor | " + " | ".join(f"n={size}" for size in sizes) + " |"]
    lines.append("|" + "---|" * (2 + len(sizes)))
    for file, name in dict.fromkeys((key[0], key[1]) for key in ranks):
        found = [ranks.get((file, name, size)) for size in sizes]
        values = [_cell(r) if r else "-" for r in found]
        lines.append(f"| {file} | {name} | " + " | ".join(values) + " |")
    return "\n".join(lines)


def _read(path: Path) -> list[Cell]:
    """Cells that are done; those of earlier versions without N@k are measured again."""
    return [row for row in read_jsonl(path) if row["test"] != "ranks" or "n_at_10" in row]


def _cell(row: Cell) -> str:
    top = "/".join(f"{row[n]:.3g}" for n in ("n_at_1", "n_at_10", "precision_at_10", "regret"))
    return f"{row['kendall_tau_mean']:.3f} / {top}"


def main() -> None:
    """Measure what is missing, then print everything."""
    options = _parser().parse_args()
    done = _read(options.out)
    for key, run in [] if options.show else _todo(options):
        if not any(key.items() <= row.items() for row in done):
            append_jsonl(options.out, key | run())
    rows = _read(options.out)
    if options.only == "warm_start":
        rows = warm_start.saved(rows)
    print(markdown(rows) if options.table else json.dumps(rows, indent=1))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--only", choices=PARTS, help="by default neither of them")
    parser.add_argument("--n", nargs="+", help="labels, or `half` of them")
    parser.add_argument("--files", nargs="+", default=list(DEFAULT_FILES), choices=FILES)
    parser.add_argument("--predictors", nargs="+", help="by default all that are installed")
    parser.add_argument("--losses", action="store_true", help="compare the losses of gcn")
    parser.add_argument("--table", action="store_true", help="print Markdown")
    parser.add_argument("--show", action="store_true", help="measure nothing")
    return parser


def _todo(options: argparse.Namespace) -> list[tuple[Cell, Callable[[], Cell]]]:
    """The cells that the options choose."""
    if options.only:
        part = PARTS[options.only]
        return list(part(options.data, options.seeds, options.predictors or (), options.n or ()))
    installed = [n for n in REGISTRY.names if not REGISTRY.describe(n).missing and n not in COPIES]
    names = ["gcn", *(n for n in installed if n != "gcn"), *COSTS]
    names = list(LOSSES) if options.losses else options.predictors or names
    sizes = options.n or list(SIZES)
    todo = list(cells(options.data, options.seeds, names, sizes, options.files))
    if not (options.losses or options.predictors):
        todo += other_cells(options.data, options.seeds)
    return todo


if __name__ == "__main__":
    main()
