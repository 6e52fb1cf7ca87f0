"""Fits tables to whole networks measured by the authors of HELP (2106.08630)."""

from __future__ import annotations

from pathlib import Path

from hwnas.interfaces import DeviceSpec
from hwnas.latency.fitted import fit_table
from hwnas.latency.table import Fact, LatencyTable, Protocol
from hwnas.measure.published.networks import batch_of, group_of, read_measurements
from hwnas.spaces.index import op_counts

__all__ = ["convert"]

NOISY = 0.05  # a fitted table with a larger cross-fitted mean error has a warning
PHONES = ("pixel", "samsung", "essential")


def convert(folder: Path, column: str) -> LatencyTable:
    """A table fitted to one column (device and batch size) of a data set of HELP.

    Raises:
        UserError: the folder contains no such data set, or the data set has no such column.
    """
    data = read_measurements(folder)
    measured = data.column(column)
    counts = op_counts(data.space, data.live_codes)
    rows, correction = fit_table(data.space, data.live_codes, counts, measured)
    error = correction.validation.forecast
    warnings = [
        "rows are fitted to whole networks, not timed: only their sums over networks of "
        f"{data.space.name} are meaningful",
        "p95 is a percentile over networks, not over runs: 95 % of the networks took less than "
        "p95_factor times their estimate",
    ]
    if error.mape > NOISY or column.startswith(PHONES):
        warnings.append(
            f"noisy source: estimates miss by {error.mape:.1%} on average and {error.p95:.0%} at "
            "the 95th percentile; phones throttle, and the source has only whole milliseconds"
        )
    facts: dict[str, Fact] = {
        "runtime": "not stated by the source",
        "source": "github.com/HayeonLee/HELP, commit 45f70eb92d0d, data/*/latency (NeurIPS 2021)",
        "licence": "MIT (2024 HayeonLee); pixel3 comes from GATECH-EIC/HW-NAS-Bench, MIT",
        "column": column,
        "n_networks": len(measured),
        "threads": "not stated by the source",
    }
    return LatencyTable(
        device=DeviceSpec(
            group_of(column).replace("_", "-"),
            runtime="unknown",
            provider="unknown",
            transport="offline",
            batch=batch_of(column),
        ),
        protocol=Protocol("published-help", "whole networks, as the authors measured them", 1),
        source="fitted",
        facts=facts,
        rows=rows,
        corrections={data.space.id: correction},
        warnings=tuple(warnings),
    )
