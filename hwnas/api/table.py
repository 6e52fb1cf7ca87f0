"""`hwnas table ...`: shows, checks, converts and transfers latency tables."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import reduce
from math import isfinite
from pathlib import Path
from typing import Any

from hwnas.api.options import require_place
from hwnas.api.profile import prepare
from hwnas.api.result import Folder, Listing, ProgressFor, Settings, no_progress
from hwnas.api.space import as_space
from hwnas.core.errors import CheckFailed, UserError
from hwnas.core.rundir import RunDir
from hwnas.latency.estimator import TableEstimator
from hwnas.latency.shipped import latency_table, shipped_tables
from hwnas.latency.table import LatencyTable
from hwnas.measure.tables import (
    compare_tables,
    missed_bounds,
    provenance,
    served_spaces,
    table_summary,
)
from hwnas.pipeline.artifacts import Artifacts
from hwnas.spaces.arch import Arch
from hwnas.spaces.load import read_arch
from hwnas.spaces.space import SearchSpace

log = logging.getLogger(__name__)

__all__ = [
    "describe",
    "table_convert",
    "table_diff",
    "table_estimate",
    "table_fit",
    "table_list",
    "table_merge",
    "table_show",
    "table_transfer",
    "table_validate",
    "transfer_plan",
]

Table = LatencyTable | Folder
"""A table, the name of a shipped one, or a `.json` file."""


def as_table(given: Table) -> LatencyTable:
    """The table for an argument of a public function."""
    return given if isinstance(given, LatencyTable) else latency_table(given)


def table_list(*, run: Folder | None = None) -> Listing:
    """Shipped tables, and those of a run folder.

    `provenance`: measured here (by a run or a file of yours, on a processor like this one) or on
        another machine, published, fitted to published networks, or transferred from other tables;
        `own timings` where the numbers are those of a user.
    """
    rows = [_facts(name, latency_table(name)) for name in shipped_tables()]
    if run is not None:
        found = RunDir(Path(run))
        found.check()
        files = Artifacts(found)
        if not files.config.is_file():
            config = f"a file {files.config}"
            raise UserError("this is not a run folder", expected=config, found="none", where=run)
        every = files.table("*")
        paths = sorted(every.parent.glob(every.name))
        rows += [_facts(str(path), LatencyTable.load(path)) for path in paths]
    shown = [row | {"runtime": row["runtime"].replace("unknown", "not stated")} for row in rows]
    return Listing(rows, shown=[{k: v for k, v in row.items() if k != "source"} for row in shown])


def _facts(name: str, table: LatencyTable) -> dict[str, Any]:
    return {
        "table": name,
        "device": table.device.name,
        "runtime": table.device.runtime,
        "precision": table.device.precision,
        "n_ops": len(table.rows),
        "spaces": ", ".join(sorted(table.corrections)),
        "source": table.source,
        "provenance": provenance(table),
    }


def describe(table: LatencyTable) -> Listing:
    """Description of a new table, and the quality of its estimates, for printing."""
    return Listing(
        table_summary(table),
        title=f"{table.device.name}: {len(table.rows)} operators, {provenance(table)}",
        facts={
            "device": table.device.name,
            "n_ops": len(table.rows),
            "source": table.source,
            "provenance": provenance(table),
            "facts": table.facts,
            "warnings": list(table.warnings),
        },
    )


def table_show(table: Table) -> Listing:
    """Description of a table, the spaces that it covers, and the quality of its estimates."""
    found = as_table(table)
    served = served_spaces(found)
    for row in served:
        row["interval"] = [end if isfinite(end) else None for end in row["interval"]]
    shown = describe(found)
    return Listing(shown.rows, shown.title, {**shown.facts, "serves": served})


def table_estimate(
    table: Table,
    *,
    space: SearchSpace | str,
    arch: Sequence[Arch | str] | Arch | str = (),
    resolutions: Sequence[int] | None = None,
    settings: Settings = None,
    num_classes: int | None = None,
) -> Listing:
    """Latency of archs with its 90 % interval; see `LatencyTable.estimate` for arrays.

    arch: one or several archs, `largest`, `smallest`, comma-separated codes, or `.json` files;
        default: `largest` and `smallest`.
    num_classes: for a space by name; default: the number that the table was measured with, or
        `NUM_CLASSES`.

    Raises:
        UserError: the table lacks operators of the space; names settings that would work.
    """
    known = as_table(table)
    found = as_space(
        space, settings=settings, resolutions=resolutions, num_classes=num_classes, tables=[known]
    )
    given = [arch] if isinstance(arch, (str, Arch)) else arch or ("smallest", "largest")
    archs = [a if isinstance(a, Arch) else read_arch(found, a) for a in given]
    names = [a.key if isinstance(a, Arch) else a for a in given]
    estimator = TableEstimator(known, found)
    if doubt := estimator.doubtful_classifier:
        log.warning("%s", doubt)
    priced = estimator.estimate(archs).to_dict()
    columns = zip(names, priced["ms"], priced["low"], priced["high"], strict=True)
    return Listing(
        [{"arch": a, "ms": ms, "low": low, "high": top} for a, ms, low, top in columns],
        title=found.id,
        facts={"space": found.id, "correction": priced["correction"]},
    )


def table_validate(
    table: Table,
    *,
    max_mape: float = 0.05,
    max_p95: float | None = None,
    min_tau: float | None = None,
) -> Listing:
    """Checks the errors of a table on held-out networks against bounds; returns the errors.

    max_mape: maximum mean relative error.
    max_p95: maximum 95th percentile of the relative error.
    min_tau: minimum Kendall rank correlation with the timings.

    Raises:
        CheckFailed: a bound is missed.
    """
    found = as_table(table)
    if missed := missed_bounds(found, max_mape=max_mape, max_p95=max_p95, min_tau=min_tau):
        where = found.device.name if isinstance(table, LatencyTable) else table
        what = "the errors or the ranking of the estimates miss a bound on held-out networks"
        raise CheckFailed(what, found=missed, where=where)
    return describe(found)


def table_fit(
    run: Folder, *, device: str = "local", progress: ProgressFor = no_progress
) -> LatencyTable:
    """Rebuilds the table of a run from its stored timings, without timing again."""
    from hwnas.pipeline.opening import open_project
    from hwnas.pipeline.stages.profile import refit

    with open_project(Path(run), progress_for=progress, command="hwnas table fit") as project:
        return refit(project, device)


def table_convert(
    source: str, path: Folder, *, out: Folder | None = None, device: str | None = None
) -> LatencyTable:
    """Makes a table from published latencies; rows are fitted if only whole networks were timed.

    Args:
        source: `accel_nasbench`, `help`, `hw_nasbench201`, `ofa_i7`, `pixel1` or `tfnas`.
        path: the published file or folder.
        out: file to which the table is also written.
        device: column of `accel_nasbench`, `help` or `hw_nasbench201`.
    """
    from hwnas.measure.published.convert import convert

    require_place(out, ".json")
    return _saved(convert(source, Path(path), device), out)


def table_diff(first: Table, second: Table) -> Listing:
    """Compares two tables on their common operators.

    Raises:
        UserError: the tables have no common operator.
    """
    relation = compare_tables(as_table(first), as_table(second))
    shown = {**relation, "most_changed": "\n".join(relation["most_changed"])}
    return Listing([relation], shown=[{"of B to A": k, "value": v} for k, v in shown.items()])


def table_merge(tables: Sequence[Table], *, out: Folder | None = None) -> LatencyTable:
    """One table with the rows and corrections of all tables.

    If several tables have the same row or correction, that of the first of these tables is kept.

    out: file to which the table is also written.

    Raises:
        UserError: device, precision, batch, threads, runtime version or protocol differ.
    """
    if not tables:
        raise UserError("nothing to merge", expected="at least one table", found="none")
    require_place(out, ".json")
    return _saved(reduce(LatencyTable.merge, map(as_table, tables)), out)


def table_transfer(
    device: str,
    *,
    known: Sequence[Table],
    out: Folder,
    space: SearchSpace | str | None = None,
    resolutions: Sequence[int] | None = None,
    settings: Settings = None,
    num_classes: int | None = None,
    profile_settings: Settings = None,
    n: int = 10,
    seed: int = 0,
    progress: ProgressFor = no_progress,
) -> LatencyTable:
    """Makes a table for a device from tables of other devices and timings of `n` networks.

    known: tables of other devices, which determine the networks to time.
    out: table to write. Timings are stored next to it, so that an interrupted call resumes.
    """
    from hwnas.measure.transfer import transfer_table

    require_place(out, ".json")
    job = prepare(device, space, resolutions, settings, num_classes, profile_settings)
    made = transfer_table(
        [as_table(table) for table in known],
        job.space,
        job.device,
        Path(out).with_suffix(".samples"),
        job.settings,
        n=n,
        seed=seed,
        progress=progress(f"time {job.device.name}"),
        transport=job.transport,
    )
    return _saved(made, out)


def transfer_plan(
    device: str,
    *,
    known: Sequence[Table],
    space: SearchSpace | str | None,
    resolutions: Sequence[int] | None,
    settings: Settings,
    num_classes: int | None,
    profile_settings: Settings,
    n: int,
    seed: int,
) -> Listing:
    """Lists the networks that `table_transfer` would time; fact `left_s`: their time in seconds."""
    from hwnas.latency.session_time import session_s
    from hwnas.measure.transfer import networks_to_time
    from hwnas.spaces.cost import cost

    job = prepare(device, space, resolutions, settings, num_classes, profile_settings)
    nets = networks_to_time([as_table(table) for table in known], job.space, n=n, seed=seed)
    rows = [{"network": i, "codes": ",".join(map(str, net))} for i, net in enumerate(nets)]
    left_s = session_s(cost(job.space, nets, "macs").astype(float), job.settings)
    return Listing(rows, facts={"left_s": left_s, "is_here": job.device.transport == "local"})


def _saved(table: LatencyTable, out: Folder | None) -> LatencyTable:
    if out is not None:
        table.save(Path(out))
    return table
