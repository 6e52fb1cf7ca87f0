"""Own timings from CSV files: what they become, in every dialect, and what is refused."""

from __future__ import annotations

import codecs
import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import hwnas
from hwnas.core.errors import UserError
from hwnas.core.rng import rng
from hwnas.interfaces import DeviceSpec
from hwnas.latency.construction import borders, context_id, contexts, op_id
from hwnas.latency.sections import ProfileConfig
from hwnas.latency.table import LatencyTable
from hwnas.measure.networks import network_id, validation_nets
from hwnas.measure.own_timings import read_timings, write_template
from hwnas.spaces.cost import op_macs
from hwnas.spaces.index import enumerate_ops
from hwnas.spaces.lowering import lower
from hwnas.spaces.mobilenet_tiny import Config, build
from hwnas.spaces.ops import OpSpec
from hwnas.spaces.space import SearchSpace

DEVICE = DeviceSpec("my-phone", transport="offline")
CONFIG = ProfileConfig(n_validation=12)
Rows = list[dict[str, str]]


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    """A handful of ops."""
    whole = build(Config(resolutions=(16,)), num_classes=4)
    widths = {f"stage{s}.width": (width,) for s, width in enumerate((16, 32, 48))}
    expands = {f"stage{s}.block{b}.expand": (2,) for s in range(3) for b in range(3)}
    return whole.restrict({"stem.width": (8,), **widths, **expands})


def op_ms(op: OpSpec) -> float:
    return 0.01 + op_macs(op) * 1e-7


def net_ms(space: SearchSpace, codes: np.ndarray) -> float:
    return 0.02 + sum(op_ms(op) for op in lower(space, space.arch(codes)))


def filled(space: SearchSpace, folder: Path) -> Rows:
    """The template with the latencies of an additive device."""
    write_template(space, CONFIG, folder / "template.csv", seed=0)
    ops = {str(op): op for op in enumerate_ops(space)}
    rows = list(csv.DictReader((folder / "template.csv").open()))
    for row in rows:
        assert row["ms"] == ""
        if row["operator"]:
            row["ms"] = f"{op_ms(ops[row['operator']]):.9f}"
        else:
            codes = np.array([int(code) for code in row["arch"].split()])
            row["ms"] = f"{net_ms(space, codes):.9f}"
    return rows


def write(path: Path, rows: Rows, *, sep: str = ",", decimal: str = ".", head: bytes = b"") -> Path:
    """As Excel saves it."""
    names = [*rows[0]]
    cells = [[row[n].replace(".", decimal) if "ms" in n else row[n] for n in names] for row in rows]
    lines = [sep.join(line) for line in (names, *cells)]
    path.write_bytes(head + "\r\n".join([*lines, ""]).encode())
    return path


def is_exact(table: LatencyTable, space: SearchSpace, tolerance: float = 1e-4) -> None:
    codes = space.sample(20, rng=rng(1, "unseen"))
    expected = [net_ms(space, row) for row in codes]
    np.testing.assert_allclose(table.estimate(space, codes).ms, expected, rtol=tolerance)


@pytest.mark.parametrize(
    "dialect",
    [
        {},
        {"head": codecs.BOM_UTF8},
        {"sep": ";", "decimal": ",", "head": codecs.BOM_UTF8},
        {"sep": ";", "decimal": ",", "head": b"sep=;\r\n"},
        {"sep": "\t"},
    ],
)
def test_every_dialect_is_the_plain_one(dialect, space: SearchSpace, tmp_path: Path):
    rows = [row for row in filled(space, tmp_path) if row["operator"]]
    path = write(tmp_path / "own.csv", rows, **dialect)
    table = read_timings(space, DEVICE, CONFIG, path, seed=0)
    assert {op: row.median_ms for op, row in table.rows.items()} == pytest.approx(
        {op: op_ms(op) for op in enumerate_ops(space)}
    )
    assert not table.corrections and "relative cost" in table.warnings[0]


@pytest.mark.parametrize(
    ("ms", "p95"),
    [
        ("MS", "P95_MS"),
        ("Ms", "p95 ms"),
        ("latency_ms", "latency_p95_ms"),
        ("Latency (ms)", "P95 (ms)"),
        ("mean time [ms]", "p95 [ms]"),
        ("milliseconds", "p95_ms"),
    ],
)
def test_headers_as_people_write_them(ms: str, p95: str, space: SearchSpace, tmp_path: Path):
    rows = [row for row in filled(space, tmp_path) if row["operator"]]
    plain = [{"operator": row["operator"], "ms": row["ms"], "p95_ms": "9"} for row in rows]
    renamed = [
        {"Operator": r["operator"], "Note": "my phone", "": "", ms: r["ms"], p95: "9"}
        for r in plain
    ]
    tables = [
        read_timings(space, DEVICE, CONFIG, write(tmp_path / f"{n}.csv", found), seed=0)
        for n, found in enumerate((plain, renamed))
    ]
    assert tables[0].rows == tables[1].rows
    assert {row.p95_ms for row in tables[1].rows.values()} == {9.0}


def test_operators_beside_networks_have_a_correction(space: SearchSpace, tmp_path: Path):
    path = write(tmp_path / "own.csv", filled(space, tmp_path), sep=";", decimal=",")
    table = read_timings(space, DEVICE, CONFIG, path, seed=0)
    is_exact(table, space)
    assert table.source == "converted" and table.device == DEVICE
    assert table.protocol.hot_samples == 1 and {row.n for row in table.rows.values()} == {1}
    assert table.corrections[space.id].validation.repeat_mape is None
    table.save(tmp_path / "table.json")
    assert LatencyTable.load(tmp_path / "table.json") == table


def test_networks_alone_give_fitted_rows(space: SearchSpace, tmp_path: Path):
    codes = np.unique(space.sample(90, rng=rng(2, "own")), axis=0)
    rows = [
        {"arch": ",".join(map(str, row)), "ms": f"{net_ms(space, row):.9f}", "p95_ms": "9"}
        for row in codes
    ]
    path = write(tmp_path / "nets.csv", rows, sep=";", decimal=",")
    table = read_timings(space, DEVICE, CONFIG, path, seed=0)
    assert table.source == "fitted"
    is_exact(table, space, tolerance=0.02)
    with pytest.raises(UserError, match=r"(?s)too few networks.*nets\.csv"):
        read_timings(space, DEVICE, CONFIG, write(path, rows[:20], sep=";"), seed=0)


def test_models_of_the_kit_give_the_table_of_a_profile(space: SearchSpace, tmp_path: Path):
    def around(border: tuple[int, int]) -> float:
        return 0.003 + border[0] * 5e-6

    times = {context_id(b): 0.02 + around(b) for b in contexts(enumerate_ops(space))}
    for op in enumerate_ops(space):
        times[op_id(op)] = 0.02 + op_ms(op) + sum(around(b) for b in borders(op) if b) / 2
    nets = validation_nets(space, 12, seed=0)
    times |= {network_id(space, row): net_ms(space, row) for row in nets}
    rows = [{"model": f"models/{name}.onnx", "ms": f"{ms:.9f}"} for name, ms in times.items()]
    table = read_timings(space, DEVICE, CONFIG, write(tmp_path / "a.csv", rows), seed=0)
    is_exact(table, space, tolerance=1e-3)
    with pytest.raises(UserError, match=r"1 models of the kit are missing"):
        read_timings(space, DEVICE, CONFIG, write(tmp_path / "b.csv", rows[1:]), seed=0)
    with pytest.raises(UserError, match=r"models of the kit are (missing|not known)"):
        read_timings(space, DEVICE, CONFIG, tmp_path / "a.csv", seed=7)


def change(row: int, **cells: str) -> Callable[[Rows], object]:
    return lambda rows: rows[row].update(cells)


BAD: list[tuple[Callable[[Rows], object], str]] = [
    (change(2, ms="fast"), r"finite number[\s\S]*own\.csv:4, ms"),
    (change(2, ms="-1"), r"out of range[\s\S]*own\.csv:4"),
    (change(2, ms="0"), "out of range"),
    (change(2, ms="2e9"), r"expected: 0 < ms < 1e\+09\n  found: ms 2e\+09"),
    (change(2, ms="1e999"), "finite number"),
    (change(2, ms="1.5 ms"), r"found: '1\.5 ms'[\s\S]*fix: write digits .* without a unit"),
    (change(2, ms="1'234.5"), "fix: write digits with a decimal point, .* thousands"),
    (change(2, ms="nan"), "finite number"),
    (change(2, operator="mbconv 16>16"), r"not an operator of the space[\s\S]*own\.csv:4"),
    (change(2, operator=""), "must name one model"),
    (change(2, arch="0 1"), "must name one model"),
    (change(-1, arch="0 1 99"), r"where: .*own\.csv:"),
    (change(-1, arch="x"), "cannot read the arch"),
    (lambda rows: rows.append(dict(rows[0])), r"two timings for one name[\s\S]*fix: remove one"),
    (lambda rows: rows.pop(0), "1 operators are missing"),
    (lambda rows: [row.update(ms="") for row in rows], "no timings"),
    (lambda rows: [row.pop("ms") for row in rows], "no column 'ms'"),
    (lambda rows: [row.update({"us": row.pop("ms")}) for row in rows], "no column 'ms'"),
    (
        lambda rows: [
            row.update({"mean_ms": row["ms"], "Median (ms)": row.pop("ms")}) for row in rows
        ],
        r"2 columns match 'ms'[\s\S]*column of median latencies[\s\S]*"
        r"found: the columns mean_ms, Median \(ms\)[\s\S]*give the name `ms` to the column",
    ),
    (lambda rows: [row.update({"op": row.pop("operator")}) for row in rows], "must name one model"),
]


@pytest.mark.parametrize(("spoil", "message"), BAD)
def test_what_is_wrong_is_named_with_its_line(spoil, message, space: SearchSpace, tmp_path: Path):
    rows = filled(space, tmp_path)
    spoil(rows)
    with pytest.raises(UserError, match=message):
        read_timings(space, DEVICE, CONFIG, write(tmp_path / "own.csv", rows), seed=0)


def test_files_that_are_no_tables_are_refused(space: SearchSpace, tmp_path: Path):
    for content, message in (
        (b"", "no column"),
        ("operator,ms\nmbconv 1\u00b5,2\n".encode("latin-1"), "save the table as CSV in UTF-8"),
        (b"arch,ms\n0,1,2,0.5\n", "quote cells"),
        (b"arch,ms,ms\n0,1,2\n", r"(?s)same name.*found: more than one column 'ms'\n"),
        (b"name:ms\n", "commas"),
    ):
        (tmp_path / "x.csv").write_bytes(content)
        with pytest.raises(UserError, match=message):
            read_timings(space, DEVICE, CONFIG, tmp_path / "x.csv", seed=0)
    for name, fix in (("X.csv", "did you mean 'x.csv'"), ("none/a.csv", "check the path")):
        with pytest.raises(UserError, match=rf"(?s)file not found.*a CSV file.*fix: {fix}"):
            read_timings(space, DEVICE, CONFIG, tmp_path / name, seed=0)


def test_the_verb_writes_the_template_and_reads_it(tmp_path: Path):
    space = hwnas.space("mobilenet_tiny", resolutions=[8], num_classes=4)
    template = hwnas.profile_pack("local", out=tmp_path / "own.csv", space=space)
    text = template.read_text()
    assert text.startswith("operator,arch,ms\n")
    lines = [line + "0.5" if line.endswith(",") else line for line in text.splitlines()]
    template.write_text("\n".join(lines[: 1 + len(enumerate_ops(space))]) + "\n")
    table = hwnas.profile_import("local", template, space=space, out=tmp_path / "t.json")
    assert {row.median_ms for row in table.rows.values()} == {0.5}
    assert LatencyTable.load(tmp_path / "t.json") == table
