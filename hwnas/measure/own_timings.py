"""Makes tables from CSV files with timings of other tools.

Every row has a name in one of three columns, and a latency in the column `ms`:

    model     name of a model of the packed kit, `net-1f3a...`, or its file, `models/x.onnx`
    operator  an operator as `write_template` lists it, or its key
    arch      codes of a whole network, `0,1,2` or `0 1 2`, or `smallest` or `largest`

Timings of all models of the kit give a table as `hwnas profile` does. Timings of all operators give
a table of their sums; with at least five whole networks it also has a correction. At least 50 whole
networks alone give a table with fitted rows. The column `p95_ms` is optional. Headers can be in
upper or lower case. Without a column `ms`, one such as `latency_ms` or `Time (ms)` is used.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TypeVar

import numpy as np

from hwnas.core.csv_data import CsvTable, read_csv
from hwnas.core.errors import UserError, did_you_mean
from hwnas.core.store import file_hash, write_text
from hwnas.interfaces import DeviceSpec
from hwnas.latency.construction import context_id, contexts, op_id, op_rows
from hwnas.latency.correction import MAX_MS, Correction
from hwnas.latency.fitted import fit_table
from hwnas.latency.samples import Timing
from hwnas.latency.sections import ProfileConfig
from hwnas.latency.table import Fact, LatencyTable, Protocol, Source
from hwnas.latency.validation import fit_correction
from hwnas.measure.networks import network_id, validation_nets
from hwnas.predictors.records import number
from hwnas.spaces.arch import Arch
from hwnas.spaces.index import enumerate_ops
from hwnas.spaces.load import read_arch
from hwnas.spaces.ops import OpSpec
from hwnas.spaces.running import live_counts
from hwnas.spaces.space import Codes, SearchSpace

__all__ = ["read_timings", "write_template"]

NAMES = ("model", "operator", "arch")
UNIT = r"[ _]*[(\[]?(?:ms|msecs?|millis|milliseconds)[)\]]?"
HEADERS = {
    "ms": rf"(?:(?:median|mean|average|avg)[ _]?)?(?:latency|time|runtime|duration)?{UNIT}",
    "p95_ms": rf"(?:(?:latency|time)[ _]?)?p95{UNIT}",
}
"""Maps a column of numbers to a regular expression of other headers that stand for it.

Upper and lower case are equal.
"""
STATISTICS = {"ms": "median", "p95_ms": "p95"}

MIN_NETWORKS = 5  # minimum for a correction
N_SHOWN = 3
T = TypeVar("T")


@dataclass(frozen=True)
class _Timings:
    """Timings of a file, by column."""

    models: dict[str, Timing]
    operators: dict[OpSpec, Timing]
    networks: dict[Arch, Timing]


def write_template(space: SearchSpace, config: ProfileConfig, path: Path, *, seed: int) -> None:
    """Writes a CSV file with all operators, the networks of `profile`, and an empty column `ms`."""
    nets = validation_nets(space, config.n_validation, seed=seed)
    rows = [(str(op), "", "") for op in enumerate_ops(space)]
    rows += [("", " ".join(map(str, codes.tolist())), "") for codes in nets]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([("operator", "arch", "ms"), *rows])
    write_text(path, text.getvalue())


def read_timings(
    space: SearchSpace, device: DeviceSpec, config: ProfileConfig, path: Path, *, seed: int
) -> LatencyTable:
    """Makes a table from a CSV file; `config` and `seed` must be those of the packed kit.

    Raises:
        UserError: the file is not such a CSV file, or lacks timings.
    """
    timings = _read(space, path)
    if timings.models:
        return _of_models(space, device, config, timings, path, seed=seed)
    if timings.operators:
        return _of_operators(space, device, timings, path)
    return _of_networks(space, device, timings, path)


def _read(space: SearchSpace, path: Path) -> _Timings:
    table = _with_ms(read_csv(path, NAMES, also=("ms", "p95_ms")))
    ops = {name: op for op in enumerate_ops(space) for name in (str(op), op.key)}
    found = _Timings({}, {}, {})
    for row, cells in enumerate(table.rows):
        given = [name for name in NAMES if cells.get(name)]
        if len(given) != 1:
            raise UserError(
                "a row must name one model, operator or arch",
                expected=f"a value in exactly one of the columns {', '.join(NAMES)}",
                found=f"values in {' and '.join(given)}" if given else "no value in any of them",
                where=table.where(row),
            )
        timing, text = _timing(table, row), cells[given[0]]
        if timing is None:
            continue
        if given == ["model"]:
            _add(found.models, PurePosixPath(text.replace("\\", "/")).stem, timing, table, row)
        elif given == ["operator"]:
            _add(found.operators, _operator(text, ops, table.where(row)), timing, table, row)
        else:
            _add(found.networks, _arch(space, text, table.where(row)), timing, table, row)
    if not (found.models or found.operators or found.networks):
        raise UserError("no timings in the file", expected="a number in column `ms`", where=path)
    return found


def _with_ms(table: CsvTable) -> CsvTable:
    """The table in which the column of latencies is called `ms`, and that of p95 `p95_ms`."""
    columns, rows = table.columns, table.rows
    for wanted, pattern in HEADERS.items():
        found = [name for name in table.columns if re.fullmatch(pattern, name, re.IGNORECASE)]
        if wanted in table.columns or not (found or wanted == "ms"):
            continue
        if len(found) != 1:
            raise UserError(
                f"{len(found)} columns match {wanted!r}" if found else f"no column {wanted!r}",
                expected=f"one column of {STATISTICS[wanted]} latencies in milliseconds",
                found=f"the columns {', '.join(found or table.columns)}",
                where=table.path,
                fix=f"give the name `{wanted}` to the column that hwnas should read",
            )
        columns = (*columns, wanted)
        rows = tuple({**cells, wanted: cells[found[0]]} for cells in rows)
    return replace(table, columns=columns, rows=rows)


def _timing(table: CsvTable, row: int) -> Timing | None:
    """The timing of a row; None if `ms` is empty."""
    cells = table.rows[row]
    if not cells["ms"]:
        return None
    values = {
        name: number(table.decimal(row, name), where=f"{table.where(row)}, {name}")
        for name in ("ms", "p95_ms")
        if cells.get(name)
    }
    ms, p95 = values["ms"], values.get("p95_ms", values["ms"])
    if not 0 < ms <= p95 < MAX_MS:
        raise UserError(
            "a latency is out of range",
            expected=f"0 < ms{' <= p95_ms' * ('p95_ms' in values)} < {MAX_MS:g}",
            found=", ".join(f"{name} {value:g}" for name, value in values.items()),
            where=table.where(row),
        )
    return Timing(ms, ms, ms, p95, 1)


def _add(found: dict[T, Timing], name: T, timing: Timing, table: CsvTable, row: int) -> None:
    if name in found:
        raise UserError(
            "the file has two timings for one name",
            expected="one row for each name",
            found=f"a second row for {name}",
            where=table.where(row),
            fix="remove one of the rows",
        )
    found[name] = timing


def _operator(text: str, ops: Mapping[str, OpSpec], where: str) -> OpSpec:
    if (op := ops.get(" ".join(text.split()))) is None:
        names = [name for name in ops if " " in name]
        raise UserError(
            "not an operator of the space",
            expected=f"one of the {len(names)} operators of the space, such as {names[0]!r}",
            found=text[:200],
            where=where,
            fix=did_you_mean(
                text, names, otherwise="`hwnas profile pack DEVICE --out FILE.csv` lists them"
            ),
        )
    return op


def _arch(space: SearchSpace, text: str, where: str) -> Arch:
    try:
        return read_arch(space, ",".join(text.replace(",", " ").split()))
    except UserError as error:
        error.say_where(where)
        raise


def _of_models(
    space: SearchSpace,
    device: DeviceSpec,
    config: ProfileConfig,
    timings: _Timings,
    path: Path,
    *,
    seed: int,
) -> LatencyTable:
    """The table as `profile` makes it, without the facts that the file lacks."""
    ops, nets = enumerate_ops(space), validation_nets(space, config.n_validation, seed=seed)
    names = [network_id(space, row) for row in nets]
    wanted = [*map(op_id, ops), *map(context_id, contexts(ops)), *names]
    _require(wanted, timings.models, lambda name: name, "models of the kit", path)
    rows, warnings = op_rows(timings.models, ops)
    correction = _correction(rows, space, nets, [timings.models[name] for name in names])
    return _table(device, "converted", rows, {space.id: correction}, warnings, path)


def _of_operators(
    space: SearchSpace, device: DeviceSpec, timings: _Timings, path: Path
) -> LatencyTable:
    ops = enumerate_ops(space)
    _require(ops, timings.operators, str, "operators", path)
    rows = {op: timings.operators[op] for op in ops}
    if len(timings.networks) < MIN_NETWORKS:
        said = "sums of operators were not compared with whole networks: use them as relative cost"
        return _table(device, "converted", rows, {}, (said,), path)
    nets = space.codes([*timings.networks])
    correction = _correction(rows, space, nets, [*timings.networks.values()])
    return _table(device, "converted", rows, {space.id: correction}, (), path)


def _of_networks(
    space: SearchSpace, device: DeviceSpec, timings: _Timings, path: Path
) -> LatencyTable:
    nets = space.codes([*timings.networks])
    measured = np.array([timing.median_ms for timing in timings.networks.values()])
    try:
        rows, correction = fit_table(space, nets, live_counts(space, nets), measured)
    except UserError as error:
        error.say_where(path)
        raise
    said = (
        "rows are fitted to whole networks, not timed: only their sums over networks of "
        f"{space.name} are meaningful"
    )
    return _table(device, "fitted", rows, {space.id: correction}, (said,), path)


def _require(
    wanted: Sequence[T], found: Mapping[T, Timing], name: Callable[[T], str], what: str, path: Path
) -> None:
    """Rejects a file with missing or unknown names.

    Raises:
        UserError: lists the first names.
    """
    missing = [name(one) for one in wanted if one not in found]
    unknown = [name(one) for one in found if one not in set(wanted)]
    if missing or unknown:
        listed, kind = (missing, "are missing") if missing else (unknown, "are not known")
        more = f" and {len(listed) - N_SHOWN} more" if len(listed) > N_SHOWN else ""
        raise UserError(
            f"{len(listed)} {what} {kind}",
            expected=f"the {len(wanted)} {what} of this space, device, settings and seed",
            found=f"{'no rows' if missing else 'rows'} for {', '.join(listed[:N_SHOWN])}{more}",
            where=path,
            fix="compare the file with the list of `hwnas profile pack DEVICE --out FILE.csv`",
        )


def _correction(
    rows: Mapping[OpSpec, Timing], space: SearchSpace, nets: Codes, timings: Sequence[Timing]
) -> Correction:
    """Fits a correction as for the kit; the repeat noise is unknown."""
    ms = np.array([timing.median_ms for timing in timings])
    found = fit_correction(rows, space, nets, timings, (ms, ms))
    return replace(found, validation=replace(found.validation, repeat_mape=None, repeat_tau=None))


def _table(
    device: DeviceSpec,
    source: Source,
    rows: dict[OpSpec, Timing],
    corrections: dict[str, Correction],
    warnings: Sequence[str],
    path: Path,
) -> LatencyTable:
    facts: dict[str, Fact] = {
        "source": f"own timings: {path.name}" if path.name.isprintable() else "own timings",
        "sha256": file_hash(path),
        "percentiles": "none in the source but p95_ms, where the file has it",
    }
    protocol = Protocol("own-timings", "one latency of each, as the file says", 1)
    return LatencyTable(device, protocol, source, facts, rows, corrections, tuple(warnings))
