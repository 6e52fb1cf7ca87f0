"""Work on latency tables as files: find, compare, re-fit, transfer to another device."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hwnas.core.errors import UserError
from hwnas.core.progress import Progress, silent
from hwnas.core.resources import resource, resource_names
from hwnas.core.stats import spearman
from hwnas.interfaces import DeviceSpec
from hwnas.latency.config import ProfileConfig
from hwnas.latency.table import LatencyTable
from hwnas.latency.validation import fit_correction
from hwnas.pipeline.profiling import time_networks, validation_nets
from hwnas.spaces.space import SearchSpace

__all__ = ["compare_tables", "find_table", "table_summary", "transfer_table"]


def find_table(name_or_path: str) -> LatencyTable:
    """A shipped table by name, or one from a JSON file.

    Raises:
        UserError: there is none, or it is malformed.
    """
    if name_or_path.endswith(".json"):
        return LatencyTable.load(Path(name_or_path))
    shipped = resource_names("latency_tables", ".json")
    if name_or_path not in shipped:
        raise UserError(
            f"no latency table {name_or_path!r}",
            expected=f"a path to a .json file, or one of: {', '.join(shipped) or '(none shipped)'}",
            fix="measure one: hwnas profile local --space mobilenet_tiny --out table.json",
        )
    return LatencyTable.load(resource("latency_tables", f"{name_or_path}.json"))


def table_summary(table: LatencyTable) -> list[dict[str, Any]]:
    """Per space with a correction: how good forecasts are, beside what they are to beat."""
    rows = []
    for space, correction in sorted(table.corrections.items()):
        validation = correction.validation
        fits = {
            "forecast": validation.forecast,
            "raw sum": validation.raw_sum,
            "line on MACs": validation.macs_line,
        }
        for name, fit in fits.items():
            rows.append(
                {
                    "space": space,
                    "estimate": name,
                    "mape": fit.mape,
                    "p95": fit.p95,
                    "max": fit.max,
                    "kendall_tau": fit.kendall_tau,
                }
            )
        rows.append(
            {
                "space": space,
                "estimate": "repeat noise",
                "mape": validation.repeat_mape,
                "kendall_tau": validation.repeat_tau,
            }
        )
    return rows


def compare_tables(first: LatencyTable, second: LatencyTable) -> dict[str, Any]:
    """How two tables relate on the operators that both have.

    Raises:
        UserError: they share no operator.
    """
    common = [op for op in first.rows if op in second.rows]
    if not common:
        raise UserError("the tables share no operator")
    a = np.array([first.rows[op].median_ms for op in common])
    b = np.array([second.rows[op].median_ms for op in common])
    ratio = b / a
    worst = int(np.abs(np.log(ratio)).argmax())
    return {
        "n_common": len(common),
        "n_only_first": len(first.rows) - len(common),
        "n_only_second": len(second.rows) - len(common),
        "median_ratio": float(np.median(ratio)),
        "p5_ratio": float(np.quantile(ratio, 0.05)),
        "p95_ratio": float(np.quantile(ratio, 0.95)),
        "spearman": spearman(a, b),
        "most_changed": f"{common[worst]} x{ratio[worst]:.2f}",
    }


def transfer_table(
    source: LatencyTable,
    space: SearchSpace,
    device: DeviceSpec,
    folder: Path,
    config: ProfileConfig,
    *,
    seed: int = 0,
    progress: Progress = silent,
) -> LatencyTable:
    """A table for `device` from another device's rows and `config.n_validation` whole nets timed.

    The rows keep the source's proportions; the correction, its interval and its validation are of
    the new device's own timings, so a poor match shows in them.

    Raises:
        UserError: the source lacks operators of the space, or the device cannot be timed.
    """
    nets = validation_nets(space, config.n_validation, seed=seed)
    samples = time_networks(space, nets, device, folder, config, seed=seed, progress=progress)
    correction = fit_correction(source.rows, space, nets, samples.timings, samples.halves)
    scale = correction.coefficients["scale"]
    if scale <= 0:
        raise UserError(
            "the source table says nothing about this device",
            found=f"best fit to {len(nets)} networks gives its rows no weight",
            fix="measure the device: hwnas profile",
        )
    rows = {
        op: replace(
            row,
            **{
                name: getattr(row, name) * scale
                for name in ("median_ms", "p10_ms", "p90_ms", "p95_ms")
            },
        )
        for op, row in source.rows.items()
    }
    rescaled = replace(correction, coefficients={**correction.coefficients, "scale": 1.0})
    return LatencyTable(
        device=device,
        protocol=source.protocol,
        source="transferred",
        facts={**samples.facts, "transferred_from": source.device.name},
        rows=rows,
        corrections={space.id: rescaled},
        warnings=(f"rows are those of {source.device.name}, scaled",),
    )
