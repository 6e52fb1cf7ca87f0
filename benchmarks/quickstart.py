"""The claim of the quickstart: its winner beside the networks that one would take instead.

    python benchmarks/quickstart.py --work /tmp/quickstart

Runs the configuration with several seeds, and per seed, on the test photos of it: the winner, the
smallest network, five random subnets as fast as the winner by the table, and the full pretrained
network at the largest resolution (in steps of 8 px) that keeps the limit, once fine-tuned as the
winner was (`lower resolution`) and once trained by itself for as many images as the winner saw
(`lower resolution, alone`). `--references FILE` (several times) adds published networks of other
shapes, whose weights `hwnas pretrained import` reads; see `quickstart_parts/published.py`:

    --references $DATA/weights_mobilenet_int8/mobilenet_v1_0.5_160_quant.npz

Prints JSON. `claims`: differences in points with paired bootstrap intervals over seeds and images,
and whether they hold: winner above the smallest and above the mean of the random subnets, not
significantly below the better one of the two full networks, nor below a published network as the
better of its two trainings leaves it, at most the configured share of the largest's measured
latency; random subnets at most 97 %, since an easier task shows nothing. `cpu_s`: processor time of
the run itself, all stages, by seed.

`--work` keeps every network that is finished; the same command goes on where it was cut off.
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

from pretrained_parts import networks
from pretrained_parts.paired import Difference, Hits, hits, paired
from quickstart_parts import published

import hwnas
from hwnas.cli.output import progress_for
from hwnas.core.env import host_facts, use_threads
from hwnas.core.overrides import assignments
from hwnas.core.store import read_json, write_json
from hwnas.pipeline.project import Project
from hwnas.pipeline.start import supernet_with_head
from hwnas.spaces.arch import Arch
from hwnas.spaces.lowering import resolution

N_RANDOM, TOO_EASY, LEVEL = 5, 0.97, 0.95
SMALLER, SMALLER_ALONE = "lower resolution", "lower resolution, alone"


def seconds(path: Path, run: Any) -> Any:
    """What `run` returns, its processor time added to the file `path`: a resumed run counts on."""
    started = sum(os.times()[:4])  # of this process and of the device kit's
    found = run()
    before = read_json(path)["cpu_s"] if path.exists() else 0.0
    write_json(path, {"cpu_s": round(before + sum(os.times()[:4]) - started, 1)})
    return found


def of_seed(options: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Hits and latencies of all networks of one seed; the run is made where it is not done."""
    work = options.work / f"seed{seed}"
    settings = {**assignments(options.set), "seed": seed}
    run = seconds(
        work / "cpu.json",
        lambda: hwnas.run(
            options.config,
            folder=work / "run",
            settings=settings,
            report_only=True,
            progress=progress_for,
        ),
    )
    project = run.project
    use_threads(project.config.threads)
    rows = {row.name: row for row in run.networks if row.device == project.first_device}
    winner, limit = rows["winner"].arch, rows["winner"].limit_ms
    assert limit is not None, "the configuration limits no latency"
    lower = networks.lower_resolution(project, limit, work / "timed/px")
    random = networks.random_subnets(project, winner, N_RANDOM)
    archs = {f"random {n}": (project.space, arch) for n, arch in enumerate(random)}
    latencies = {name: row.measured_ms for name, row in rows.items()}
    latencies |= networks.time_archs(project, archs, work / "timed/random")
    found = {
        name: _kept(work, name, lambda name=name: (run.network(name), rows[name].arch), project)
        for name in ("winner", "smallest", "largest")
    }
    for name, (_, arch) in archs.items():
        found[name] = _tuned(work, name, project, arch, resolution(project.space, arch))
    if lower is not None:
        px, ms = lower
        for name in (SMALLER, SMALLER_ALONE):
            largest, is_alone = project.space.largest(), name == SMALLER_ALONE
            found[name] = _tuned(work, name, project, largest, px, alone=is_alone)
            latencies[name] = ms
    outside = published.at_limits(project, options.references, limit, work / "timed/published")
    for one in outside:
        found |= _published(work, project, one)
        latencies[one.name] = one.ms
    return {
        "seed": seed,
        "hits": found,
        "latency_ms": latencies,
        "limit_ms": limit,
        "lower_px": None if lower is None else lower[0],
        "published_px": {one.name: one.px for one in outside},
        "cpu_s": read_json(work / "cpu.json")["cpu_s"],
    }


def _published(work: Path, project: Project, one: published.Published) -> dict[str, Hits]:
    """Hits of a published network, by the way in which it was trained."""
    found = {}
    for way in published.WAYS:
        name = f"{one.name}, {way}"
        path, steps = work / f"{name}.npy", work / "steps" / name
        if not path.exists():
            np.save(path, hits(published.trained(project, one, way, steps), project.data, one.px))
            print(f"{work.name}, {name}: {np.load(path).mean():.3f}", file=sys.stderr, flush=True)
        found[name] = np.load(path)
    return found


def _kept(work: Path, name: str, make: Any, project: Project) -> Hits:
    """Hits of a network of the run."""
    path = work / f"{name}.npy"
    if not path.exists():
        model, arch = make()
        np.save(path, hits(model, project.data, resolution(project.space, arch)))
    found: Hits = np.load(path)
    return found


def _tuned(
    work: Path, name: str, project: Project, arch: Arch, px: int, *, alone: bool = False
) -> Hits:
    """Hits of a network that is fine-tuned here."""
    path, steps = work / f"{name}.npy", work / "steps" / name
    if not path.exists():
        if alone:
            start = supernet_with_head(project)
            model = networks.alone(project, start, arch, px, steps)
        else:
            model = networks.Tuner(project)(arch, px, steps)
        np.save(path, hits(model, project.data, px))
        print(f"{work.name}, {name}: {np.load(path).mean():.3f}", file=sys.stderr, flush=True)
    found: Hits = np.load(path)
    return found


def claims(rows: list[dict[str, Any]], most: float) -> dict[str, Any]:
    """What the quickstart promises, and whether it holds."""

    def of(name: str) -> list[Hits]:
        return [row["hits"][name] for row in rows]

    def random(row: dict[str, Any]) -> Hits:
        names = [name for name in row["hits"] if name.startswith("random ")]
        mean: Hits = np.mean([row["hits"][name] for name in names], axis=0)
        return mean

    winner, randoms = of("winner"), [random(row) for row in rows]

    def above(other: list[Hits]) -> Difference:
        return paired([winner], [other], level=LEVEL)

    smallest, drawn = above(of("smallest")), above(randoms)
    shares = [row["latency_ms"]["winner"] / row["latency_ms"]["largest"] for row in rows]
    return {
        "winner - smallest": {**smallest.to_dict(), "holds": smallest.is_above},
        "winner - mean of random subnets": {**drawn.to_dict(), "holds": drawn.is_above},
        **_lower(rows, winner),
        **_outside(rows, winner),
        "share of the largest's latency": {
            "of seeds": [round(share, 3) for share in shares],
            "holds": max(shares) <= most,
        },
        "random subnets are not too good": {
            "top1": round(float(np.mean(randoms)), 4),
            "holds": float(np.mean(randoms)) <= TOO_EASY,
        },
    }


def _lower(rows: list[dict[str, Any]], winner: list[Hits]) -> dict[str, Any]:
    """The claim on the full network at a lower resolution, as the better of the two ways."""
    if any(SMALLER not in row["hits"] for row in rows):
        return {"winner - lower resolution": {"holds": True, "note": "none keeps the limit"}}
    return _beside(rows, winner, (SMALLER, SMALLER_ALONE))


def _outside(rows: list[dict[str, Any]], winner: list[Hits]) -> dict[str, Any]:
    """The claims on published networks that keep the limit with every seed."""
    found = {}
    for name in set.intersection(*({*row["published_px"]} for row in rows)):
        found |= _beside(rows, winner, tuple(f"{name}, {way}" for way in published.WAYS))
    return found


def _beside(
    rows: list[dict[str, Any]], winner: list[Hits], ways: tuple[str, ...]
) -> dict[str, Any]:
    """The claim that the winner is not below a network, as the better training leaves that."""
    both = {name: [row["hits"][name] for row in rows] for name in ways}
    better = max(both, key=lambda name: float(np.mean(both[name])))
    found = paired([winner], [both[better]], level=LEVEL)
    aim = found.points > 0
    return {f"winner - {better}": {**found.to_dict(), "holds": not found.is_below, "aim": aim}}


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    """JSON of one seed."""
    top1 = {name: round(float(np.mean(right)), 4) for name, right in row["hits"].items()}
    return {key: value for key, value in row.items() if key != "hits"} | {"top1": top1}


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="quickstart")
    parser.add_argument("--work", type=Path, required=True, help="run folders and results")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--most", type=float, default=0.4, help="share of the largest's latency")
    parser.add_argument("--references", type=Path, action="append", default=[], metavar="FILE")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    rows = [of_seed(options, seed) for seed in range(options.seeds)]
    print(
        json.dumps(
            {
                "benchmark": "quickstart",
                "config": options.config,
                "settings": options.set,
                "claims": claims(rows, options.most),
                "seeds": [_shown(row) for row in rows],
                "n_test_images": len(rows[0]["hits"]["winner"]),
                "host": host_facts(),
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
