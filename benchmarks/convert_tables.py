"""Write every converted and fitted table that ships in `latency_tables/`, from the published data.

    python benchmarks/convert_tables.py --data $DATA [--only gold] [--out latency_tables]

Each file is what `hwnas table convert FORMAT PATH [--device COLUMN] --out FILE` writes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from hwnas.measure.published.convert import convert
from hwnas.measure.published.networks import batch_of, group_of

FBNET = (
    *("1080ti_1", "2080ti_1", "2080ti_64", "titanx_1", "titanxp_1"),
    *("gold_6240", "silver_4114", "silver_4210r"),
    *("essential_ph_1", "samsung_a50", "samsung_s7"),
)
OFA = ("2080ti_64", "v100_64")


def main() -> None:
    """Convert, print one line per table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("latency_tables"))
    parser.add_argument("--only", default="", help="names that contain this")
    args = parser.parse_args()
    jobs: dict[str, tuple[str, Path, str | None]] = {
        "pixel1-proxyless": ("pixel1", args.data / "lut_pixel1" / "proxyless_pixel1.yaml", None),
        "xeon-gold-6130-tfnas": ("tfnas", args.data / "lut_tfnas" / "cpu.json", None),
    }
    for space, folder, columns in (
        ("fbnet", "latency_fbnet", FBNET),
        ("mobilenet_v3", "latency_ofa", OFA),
    ):
        for column in columns:
            name = f"{group_of(column).replace('_', '-')}-b{batch_of(column)}-{space}"
            jobs[name] = ("help", args.data / folder, column)
    for name, (source, path, column) in jobs.items():
        if args.only not in name:
            continue
        table = convert(source, path, column)
        table.save(args.out / f"{name}.json")
        for correction in table.corrections.values():
            fit = correction.validation.forecast
            five, ten = correction.validation.within
            interval = correction.interval_fraction
            line = correction.validation.macs_line
            by_counts = correction.validation.forest
            forest = "-" if by_counts is None else f"{by_counts.mape:.1%}"
            cells = [
                *(name, str(len(table.rows)), f"{fit.mape:.1%}", f"{fit.p95:.1%}"),
                *(f"{five:.0%}", f"{ten:.0%}", f"{fit.spearman:.3f}", f"{fit.kendall_tau:.3f}"),
                *(f"{interval:.1%}", f"{line.mape:.1%}", forest),
            ]
            print(f"| {' | '.join(cells)} |", flush=True)
        if not table.corrections:
            print(f"| {name} | {len(table.rows)} | - | - | - | - | - | - | - | - | - |", flush=True)


if __name__ == "__main__":
    main()
