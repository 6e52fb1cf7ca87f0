"""The space `mobilenet_v4` against `mobilenet_tiny`, and a search in stages against one stage.

    HWNAS_DATA=$DATA python benchmarks/mobilenet_v4.py --work /tmp/mobilenet_v4

Runs the configuration `mobilenet_v4` with several seeds, each time twice: in `mobilenet_tiny` with
the same data, budgets and recipe, and in `mobilenet_v4` with the measured latency of that winner as
its limit. In the trained supernet of `mobilenet_v4` it then searches once more, with everything
varying at once and an equal budget. Prints JSON. `claims`: differences in points of test top-1 with
paired bootstrap intervals over seeds and images, and whether they hold: `mobilenet_v4` is not
significantly below (aim: 1 point above) at no more than the measured latency; the score of the
search in stages against that of one stage, by seed. `cpu_s`: processor time by seed.

Each of the 2 x 3 runs takes about an hour on two quiet cores. `--work` keeps what is finished; the
same command resumes. `--set KEY=VALUE` changes both runs, for example to try it with few steps.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from pretrained_parts.paired import Hits, hits, paired

import hwnas
from hwnas.cli.output import progress_for
from hwnas.core.env import host_facts, use_threads
from hwnas.core.overrides import assignments
from hwnas.core.store import read_json, write_json
from hwnas.spaces.lowering import resolution

TINY = {"name": "mobilenet_tiny", "resolutions": [32, 48, 64]}
ONE_STAGE = {"search.stages": [], "search.held": {}}
LEVEL, AIM_POINTS = 0.95, 1.0


def seconds(path: Path, run: Any) -> Any:
    """What `run` returns; its processor time is added to the file `path`."""
    started = sum(os.times()[:4])  # of this process and of the device kit's
    found = run()
    before = read_json(path)["cpu_s"] if path.exists() else 0.0
    write_json(path, {"cpu_s": round(before + sum(os.times()[:4]) - started, 1)})
    return found


def finished(work: Path, name: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Hits, latency and score of the winner of one run."""
    run = seconds(
        work / f"{name}.cpu.json",
        lambda: hwnas.run(
            "mobilenet_v4",
            folder=work / name,
            settings=settings,
            report_only=True,
            progress=progress_for,
        ),
    )
    use_threads(run.project.config.threads)
    (row,) = (row for row in run.networks if row.name == "winner")
    path = work / f"{name}.npy"
    if not path.exists():
        px = resolution(run.project.space, row.arch)
        np.save(path, hits(run.network("winner"), run.project.data, px))
    return {
        "hits": np.load(path),
        "measured_ms": row.measured_ms,
        "score": run.winner.score,
        "cpu_s": read_json(work / f"{name}.cpu.json")["cpu_s"],
    }


def of_seed(options: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Both runs of a seed, and the search with one stage."""
    work = options.work / f"seed{seed}"
    common = {**assignments(options.set), "seed": seed, "search.references": None}
    tiny = finished(work, "mobilenet_tiny", {**common, **ONE_STAGE, "space": TINY})
    limit = {"device": "local", "metric": "latency_ms", "max": tiny["measured_ms"]}
    settings = {**common, "search.constraints": [limit]}
    v4 = finished(work, "mobilenet_v4", settings)
    found = hwnas.search(
        work / "mobilenet_v4",
        name="one-stage",
        settings={**settings, **ONE_STAGE},
        progress=progress_for,
    )
    one = next(row for row in found if row["network"] == "winner")
    return {
        "seed": seed,
        "mobilenet_tiny": tiny,
        "mobilenet_v4": v4,
        "score in stages": v4["score"],
        "score in one stage": one["score"],
    }


def claims(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What the proof asks for, and whether it holds."""

    def of(name: str) -> list[Hits]:
        return [row[name]["hits"] for row in rows]

    found = paired([of("mobilenet_v4")], [of("mobilenet_tiny")], level=LEVEL)
    shares = [
        row["mobilenet_v4"]["measured_ms"] / row["mobilenet_tiny"]["measured_ms"] for row in rows
    ]
    gains = [row["score in stages"] - row["score in one stage"] for row in rows]
    return {
        "mobilenet_v4 - mobilenet_tiny": {
            **found.to_dict(),
            "holds": not found.is_below,
            "aim": found.points >= AIM_POINTS,
        },
        "latency, mobilenet_v4 / mobilenet_tiny": [round(share, 3) for share in shares],
        "score, stages - one stage": {
            "of seeds": [round(gain, 4) for gain in gains],
            "mean": round(float(np.mean(gains)), 4),
        },
    }


def shown(row: dict[str, Any]) -> dict[str, Any]:
    """JSON of one seed."""
    found = dict(row)
    for name in ("mobilenet_tiny", "mobilenet_v4"):
        facts = {key: value for key, value in row[name].items() if key != "hits"}
        found[name] = {**facts, "top1": round(float(row[name]["hits"].mean()), 4)}
    return found


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="run folders and results")
    parser.add_argument("--seeds", type=int, default=3)
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
