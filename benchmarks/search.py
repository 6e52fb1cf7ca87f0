"""Searchers side by side at equal budgets: known optima, fronts, speed, steering.

    python benchmarks/search.py --only tabular --format json

Parts (`--only`, several with commas): `tabular` (nas_bench_macro, 100 evaluations, with and
without a MACs limit), `nasbench201` (with a latency limit), `queries` (evaluations until the best
of NAS-Bench-201), `macro_front` (hypervolume on NAS-Bench-Macro), `front` (hypervolume on
mobilenet_v3), `speed`, `steer`, `fifty` (one search for 50 devices of FBNet). Data are read from
$HWNAS_TEST_DATA. Every cell (part, contender, seed) is kept in `--cells` as soon as it is known; a
run that was cut off goes on. Contenders whose package is missing are named in `skipped` (`pip
install 'hwnas[bench]'`).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from search_parts import cells, fifty, front, queries, speed, steer, tabular

PARTS = {
    "tabular": tabular.nas_bench_macro,
    "nasbench201": tabular.nasbench201,
    "queries": queries.nasbench201_queries,
    "macro_front": queries.macro_front,
    "front": front.front,
    "speed": speed.speed,
    "steer": steer.steer,
    "fifty": fifty.fifty,
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default=",".join(PARTS))
    parser.add_argument("--seeds", type=int, default=None, help="fewer than the part's own")
    parser.add_argument("--cells", type=Path, default=Path("runs/search_cells"))
    parser.add_argument(
        "--table", type=Path, default=None, help="latency table (not for `tabular`)"
    )
    parser.add_argument(
        "--retime", type=Path, help="`steer`: time winners here, keep it in a folder"
    )
    parser.add_argument("--format", choices=["json"], default="json")
    given = parser.parse_args()
    data = Path(os.environ["HWNAS_TEST_DATA"])
    for name in given.only.split(","):
        kept = cells.Cells(given.cells / name)
        settings = cells.Settings(
            data=data, seeds=given.seeds, table=given.table, retime=given.retime
        )
        print(json.dumps({"part": name, **PARTS[name](kept, settings)}, indent=1), flush=True)
