"""Fits tables to the accelerators of Accel-NASBench (2404.08005) on the space `mnasnet`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hwnas.core.errors import UserError
from hwnas.interfaces import DeviceSpec, FloatArray
from hwnas.latency.fitted import fit_table
from hwnas.latency.table import Fact, LatencyTable, Protocol
from hwnas.measure.published import unknown_column
from hwnas.predictors.readers.accel_nasbench import READER
from hwnas.spaces import mnasnet
from hwnas.spaces.running import live_counts
from hwnas.spaces.space import Codes, SearchSpace

__all__ = ["COLUMNS", "convert"]

COLUMNS = {
    "zcu102": ("latency_zcu102_ms", "zcu102"),
    "a100": ("throughput_a100", "a100"),
    "3090": ("throughput_3090", "rtx-3090"),
    "tpuv2": ("throughput_tpuv2", "tpu-v2"),
    "tpuv3": ("throughput_tpuv3", "tpu-v3"),
}
"""Column of the file, and name of the device."""

UNKNOWN = "not stated by the source"

CLASSES, PX = 1000, 224


def convert(path: Path, column: str) -> LatencyTable:
    """A table fitted to one accelerator: latency of the FPGA, else time per image of a batch.

    path: the file of records as CSV (`records.csv`, or its folder).

    Raises:
        UserError: not that file, an unknown column, or values that are not positive.
    """
    if column not in COLUMNS:
        raise unknown_column(f"Accel-NASBench has no device {column!r}", column, COLUMNS)
    name, device = COLUMNS[column]
    file, is_rate = path / "records.csv" if path.is_dir() else path, name.startswith("throughput")
    space = mnasnet.build(mnasnet.Config(resolutions=(PX,)), num_classes=CLASSES)
    codes, ms = _measured(file, space, name, is_rate=is_rate)
    try:
        rows, correction = fit_table(space, codes, live_counts(space, codes), ms)
    except UserError as error:
        error.say_where(f"{file}, column {name}")
        raise
    facts: dict[str, Fact] = {
        "runtime": UNKNOWN,
        "source": "github.com/afzalxo/Accel-NASBench, commit 42603572d530, as CSV (2404.08005)",
        "licence": "Apache-2.0 (Afzal Ahmad et al.)",
        "column": name,
        "n_networks": len(codes),
        "precision": UNKNOWN if is_rate else "int8",
        "threads": UNKNOWN,
        "batch": f"{UNKNOWN} (64 or more)" if is_rate else 1,
    }
    warnings = [
        "rows are fitted to whole networks, not timed: only their sums over networks of "
        f"{space.name} are meaningful"
    ]
    if is_rate:
        warnings.append(
            "milliseconds are 1000 / images per second of large batches: the share of one image, "
            "not the latency of one"
        )
    return LatencyTable(
        device=DeviceSpec(
            device,
            runtime="unknown",
            provider="unknown",
            transport="offline",
            precision="fp32" if is_rate else "int8",
        ),
        protocol=Protocol(
            "published-accelnasbench", "whole networks, as the authors measured them", 1
        ),
        source="fitted",
        facts=facts,
        rows=rows,
        corrections={space.id: correction},
        warnings=tuple(warnings),
    )


def _measured(
    file: Path, space: SearchSpace, name: str, *, is_rate: bool
) -> tuple[Codes, FloatArray]:
    """Networks with a value in the column, and milliseconds; values of 0 or less stay as read."""
    records = READER.read(file, space)
    if (found := records.columns.get(name)) is None:
        raise UserError(
            "the file lacks a column of this format",
            expected=f"the column {name}",
            found=f"the columns {', '.join(sorted(records.columns))}",
            where=file,
            fix="use a copy of the records that has it, or choose another device",
        )
    values = np.asarray(found.values, dtype=np.float64)
    ms = 1000 / values if is_rate and (values > 0).all() else values
    return records.codes[found.rows], ms
