"""Large inputs: time, peak memory, and whether both grow by at most n log n.

    python benchmarks/scale.py                          all parts; goes on where it was cut off
    python benchmarks/scale.py --only archive,journal   some of them
    python benchmarks/scale.py --repeats 5              each size five times, in turns

Prints JSON: for every part and size the processor seconds and the peak memory of a process of its
own (`baseline_mb` of it are Python and the imports), without the preparation of the input. `growth`
compares the two sizes of a part: `time` and `memory` (above the baseline) are ratios of the large
size to the small one, `n_log_n` is the ratio that n log n would have. Every cell (part, size) is
kept in `--cells` as soon as it is known. Parts: `archive` (search resumed), `journal`
(evaluations read), `photos` (folder indexed; indexed again with one changed file), `classes` (dry
run on so many class folders), `space` (blocks; every choice sampled, priced, searched), `labels`
(GCN fitted and asked for 10,000 archs), `networks` (correction of a latency table fitted on so many
whole networks), `report` (evaluated archs), `disk` (files of a run folder, for `hwnas status`),
`small files of huge spaces` and `configurations` (answered or refused: seconds of each command).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from scale_parts import PARTS

HERE = Path(__file__)


def measured(name: str, n: int, folder: Path) -> dict[str, object]:
    """One part at one size, in this process."""
    part = PARTS[name]
    given = part.prepared(n, folder)
    baseline = peak_mb()
    begin = time.process_time()
    facts = part.run(n, given)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = time.process_time() - begin + children.ru_utime + children.ru_stime
    return {"seconds": round(seconds, 2), "peak_mb": peak_mb(), "baseline_mb": baseline, **facts}


def peak_mb() -> int:
    """The most memory that this process, or one that it waited for, has had."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return max(usage.ru_maxrss for usage in usages) // 1000


def cell(name: str, n: int, repeat: int, options: argparse.Namespace) -> dict[str, object]:
    """A cell as it was kept, or measured now."""
    again = f"-{repeat}" if repeat else ""
    kept = options.cells / f"{name.replace(' ', '_')}-{n}{again}.json"
    if not kept.is_file():
        folder = options.work / name.replace(" ", "_") / str(n)
        folder.mkdir(parents=True, exist_ok=True)
        base = [sys.executable, str(HERE), "--work", str(folder)]
        # processes of their own: peaks of memory
        for step in ("--measure",) if repeat else ("--prepare", "--measure"):
            environment = {
                **os.environ,
                "OMP_NUM_THREADS": "1",
                "HWNAS_CACHE": str(folder / "cache"),
            }
            done = subprocess.run(
                [*base, step, name, str(n)], capture_output=True, text=True, env=environment
            )
            if done.returncode:
                sys.exit(f"{name}, {n}: {done.stderr}")
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(done.stdout)
    return {"n": n, **json.loads(kept.read_text())}


def growth(cells: list[dict[str, object]]) -> dict[str, float]:
    """Ratios of the large size to the small one."""
    small, large = cells

    def above(one: dict[str, object]) -> int:
        return max(1, int(one["peak_mb"]) - int(one["baseline_mb"]))

    def n_log_n(one: dict[str, object]) -> float:
        return int(one["n"]) * math.log(int(one["n"]))

    return {
        "time": round(float(large["seconds"]) / max(float(small["seconds"]), 0.01), 2),
        "memory": round(above(large) / above(small), 2),
        "n_log_n": round(n_log_n(large) / n_log_n(small), 2),
    }


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default=",".join(PARTS))
    parser.add_argument("--cells", type=Path, default=Path("runs/scale_cells"))
    parser.add_argument("--work", type=Path, default=Path("runs/scale"), help="inputs, 3 GB")
    parser.add_argument("--repeats", type=int, default=1, help="the least processor time counts")
    parser.add_argument("--shrink", type=int, default=1, help="divide all sizes by it")
    parser.add_argument("--prepare", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if step := options.prepare or options.measure:
        name, n = step[0], int(step[1])
        if options.prepare:
            PARTS[name].prepare(n, options.work)
        else:
            print(json.dumps(measured(name, n, options.work)))
        return
    for name in options.only.split(","):
        sizes = [max(1, n // options.shrink) for n in PARTS[name].sizes]
        turns = [
            [cell(name, n, repeat, options) for n in sizes] for repeat in range(options.repeats)
        ]
        cells = [min(of, key=lambda one: float(one["seconds"])) for of in zip(*turns, strict=True)]
        found: dict[str, object] = {"part": name, "sizes": cells}
        if len(cells) == 2:
            found["growth"] = growth(cells)
        print(json.dumps(found, indent=1), flush=True)


if __name__ == "__main__":
    main()
