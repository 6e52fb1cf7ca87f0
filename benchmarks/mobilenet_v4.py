"""The space `mobilenet_v4` against `mobilenet_tiny`, and a search in stages against one stage.

    HWNAS_DATA=$DATA python benchmarks/mobilenet_v4.py --work /tmp/mobilenet_v4

Runs the configuration `mobilenet_v4` (50 classes of Tiny-ImageNet, photos of 64 px) in two spaces:
in `mobilenet_tiny` at its own 24 to 32 px, and in `mobilenet_v4` at 32 to 64 px with the measured
latency of the first winner as its limit. Both have the same photos, labels, budgets of the search
and 8 epochs of fine-tuning. The supernets are trained for about as long as that of `cifar10_cpu`,
25 minutes of a core: 3,000 steps of `mobilenet_tiny`, whose largest network needs 23.5 million
MACs, or 7,000 of `mobilenet_v4` (7.2 million). Each has the better of the learning rates 1e-2 and
4e-3, by validation images of a short training. In the supernet of `mobilenet_v4` it then searches
with several seeds, in stages and with everything varying at once, with equal budgets.

Prints JSON. `claims`: the difference in points of test top-1 with a paired bootstrap interval over
images and seeds, and whether it holds: `mobilenet_v4` is not significantly below (aim: 1 point
above) at no more than the measured latency, both timed by turns; the searches in stages minus
those in one stage, by seed of the search: scores, and validation top-1 with the supernet's weights,
which both searches also used. `train_s`: duration of the supernet training.

`--work` keeps run folders, and `--cells` the results; the same command resumes. The results of the
documentation are part of the repository, so it prints them at once. `--set KEY=VALUE` changes both
runs, for example to try it with few steps; give other `--cells` then.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from pretrained_parts.networks import time_archs
from pretrained_parts.paired import Hits, hits, paired

from hwnas.cli.output import progress_for
from hwnas.controller.controller import run_search
from hwnas.controller.result import SearchResult
from hwnas.controller.sections import SearchConfig
from hwnas.controller.staged import search_in_stages
from hwnas.core.env import host_facts, use_threads
from hwnas.core.overrides import assignments
from hwnas.core.store import read_json, write_json
from hwnas.interfaces import SearcherContext
from hwnas.pipeline.costs import prices
from hwnas.pipeline.engine import execute
from hwnas.pipeline.evaluators import evaluator
from hwnas.pipeline.graph import stages_of
from hwnas.pipeline.opening import open_project
from hwnas.pipeline.scoring import scoring
from hwnas.pipeline.tuning import Tuning
from hwnas.pipeline.winners import result_on
from hwnas.searchers import REGISTRY as SEARCHERS
from hwnas.spaces.load import build_space
from hwnas.spaces.lowering import resolution
from hwnas.spaces.space import SearchSpace

TINY = {
    "space": {"name": "mobilenet_tiny"},
    "train.steps": 3000,
    "train.optimizer.lr": 1e-2,
    "search.stages": [],
    "search.held": {},
}
V4 = {"train.steps": 7000}
LATER = ("finetune", "export", "verify", "references")  # stages that the proof does not need
LEVEL, AIM_POINTS = 0.95, 1.0


def kept(path: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The result in the file `path`; if there is none, it is made first."""
    if not path.exists():
        write_json(path, make())
    found: dict[str, Any] = read_json(path)
    return found


def finished(
    work: Path, name: str, settings: dict[str, Any], rival: dict[str, Any] | None = None
) -> dict[str, Any]:
    """The winner of a run: its hits on test images ("0" or "1" each), and its latency.

    rival: a winner of `mobilenet_tiny`, timed in one plan with this one.
    """
    with open_project(
        work / name,
        config="mobilenet_v4",
        changes=settings,
        progress_for=progress_for,
        command="benchmark",
    ) as project:
        stages = stages_of(project)
        only = [stage.name for stage in stages if stage.name.split("/")[0] not in LATER]
        execute(stages, project.run, only=only, outlook=project.outlook)
        use_threads(project.config.threads)
        winner = result_on(project, project.first_device).winner.arch
        network = Tuning(project).network(winner, progress_for("finetune the winner"))
        found = hits(network, project.data, resolution(project.space, winner))
        timed = {"measured_ms": (project.space, winner)}
        if rival is not None:
            tiny = build_space("mobilenet_tiny", num_classes=project.space.macro.num_classes)
            timed["rival_ms"] = (tiny, tiny.arch(rival["codes"]))
        return {
            "hits": "".join(str(int(hit)) for hit in found),
            "codes": list(winner.codes),
            "resolution": resolution(project.space, winner),
            "train_s": round(project.run.ledger()["train"].seconds),
            **time_archs(project, timed, work / f"{name}-timed"),
        }


def searched(run: Path, folder: Path, seed: int, *, in_stages: bool) -> dict[str, Any]:
    """The winner of one search in a trained supernet; resumes the search in `folder`."""
    with open_project(
        run, progress_for=progress_for, command="benchmark", read_only=True
    ) as project:
        use_threads(project.config.threads)
        predict, rescoring = scoring(project)
        metrics, config = prices(project), project.config.search
        module = SEARCHERS.load(config.searcher.name)

        def one(space: SearchSpace, part: SearchConfig, stage: int) -> SearchResult:
            return run_search(
                space,
                module.build(config.searcher, SearcherContext(space, seed)),
                predict=predict,
                metrics=metrics,
                config=part,
                seed=seed,
                folder=folder / str(stage),
                rescoring=rescoring,
            )

        whole = config.model_copy(update={"stages": (), "held": {}})
        found = (
            search_in_stages(project.space, config, one)
            if in_stages
            else one(project.space, whole, 0)
        )
        arch = found.winner.arch
        return {
            "score": found.winner.score,
            "supernet_val_top1": evaluator(project).fresh(arch).top1,
            "n_predictions": found.n_predictions,
            "n_evaluations": found.n_evaluations,
        }


def of_seed(options: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Both runs of a seed, and the searches in the supernet of `mobilenet_v4`."""
    work, cells = options.work / f"seed{seed}", options.cells / f"seed{seed}"
    common = {"search.references": None, **assignments(options.set), "seed": seed}
    tiny = kept(
        cells / "mobilenet_tiny.json", lambda: finished(work, "mobilenet_tiny", TINY | common)
    )
    limit = {"device": "local", "metric": "latency_ms", "max": tiny["measured_ms"]}
    settings = V4 | common | {"search.constraints": [limit]}
    v4 = kept(cells / "mobilenet_v4.json", lambda: finished(work, "mobilenet_v4", settings, tiny))

    def search(name: str, number: int) -> dict[str, Any]:
        run, folder = work / "mobilenet_v4", work / "searches" / name / str(number)
        return searched(run, folder, number, in_stages=name == "in stages")

    searches = {
        name: [
            kept(cells / f"{name}-{number}.json", partial(search, name, number))
            for number in range(options.search_seeds)
        ]
        for name in ("in stages", "in one stage")
    }
    return {"seed": seed, "mobilenet_tiny": tiny, "mobilenet_v4": v4, "searches": searches}


def gains(rows: list[dict[str, Any]], key: str) -> dict[str, Any]:
    """The searches in stages minus those in one stage; mean and its standard error."""
    found = [
        staged[key] - one[key]
        for row in rows
        for staged, one in zip(
            row["searches"]["in stages"], row["searches"]["in one stage"], strict=True
        )
    ]
    n = len(found)
    return {
        "of searches": [round(gain, 4) for gain in found],
        "mean": round(float(np.mean(found)), 4),
        "standard_error": round(float(np.std(found, ddof=1)) / n**0.5, 4) if n > 1 else None,
    }


def claims(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What the proof asks for, and whether it holds."""

    def of(name: str) -> list[Hits]:
        return [(np.array([*row[name]["hits"]]) == "1").astype(np.float64) for row in rows]

    found = paired([of("mobilenet_v4")], [of("mobilenet_tiny")], level=LEVEL)
    shares = [row["mobilenet_v4"]["measured_ms"] / row["mobilenet_v4"]["rival_ms"] for row in rows]
    return {
        "mobilenet_v4 - mobilenet_tiny": {
            **found.to_dict(),
            "holds": not found.is_below,
            "aim": found.points >= AIM_POINTS,
        },
        "latency, mobilenet_v4 / mobilenet_tiny": [round(share, 3) for share in shares],
        "stages - one stage": {key: gains(rows, key) for key in ("score", "supernet_val_top1")},
    }


def shown(row: dict[str, Any]) -> dict[str, Any]:
    """JSON of one seed."""
    found = dict(row)
    for name in ("mobilenet_tiny", "mobilenet_v4"):
        facts = {key: value for key, value in row[name].items() if key not in ("hits", "codes")}
        top1 = row[name]["hits"].count("1") / len(row[name]["hits"])
        found[name] = {**facts, "top1": round(top1, 4)}
    return found


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="run folders and results")
    parser.add_argument(
        "--cells",
        type=Path,
        default=Path(__file__).parent / "measured" / "mobilenet_v4",
        help="results of finished runs and searches",
    )
    parser.add_argument("--seeds", type=int, default=1, help="runs in each space")
    parser.add_argument("--search-seeds", type=int, default=3, help="searches per supernet")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    rows = [of_seed(options, seed) for seed in range(options.seeds)]
    print(
        json.dumps(
            {
                "benchmark": "mobilenet_v4",
                "settings": options.set,
                "claims": claims(rows),
                "seeds": [shown(row) for row in rows],
                "n_test_images": len(rows[0]["mobilenet_v4"]["hits"]),
                "host": host_facts(),
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
