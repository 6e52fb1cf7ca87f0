"""Table files from outside: whatever they hold, they load as a sound table or are refused.

Property: every mutation of a good file either raises UserError or gives a table whose numbers are
finite, positive and usable; nothing else ever comes out, and nothing hangs.
"""

from __future__ import annotations

import contextlib
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from hwnas.cli.main import app
from hwnas.core.errors import HwnasError, UserError
from hwnas.interfaces import DeviceSpec
from hwnas.latency.correction import NetTiming
from hwnas.latency.samples import Timing
from hwnas.latency.table import LatencyTable
from hwnas.measure.tables import compare_tables
from hwnas.spaces.ops import OpSpec

GOLDEN = Path(__file__).parent.parent / "golden" / "latency_table_v1.json"
TEXT = GOLDEN.read_text()
FAST = settings(max_examples=150, derandomize=True)

junk = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=True, allow_infinity=True)
    | st.text(max_size=8)
    | st.sampled_from([1e308, -1e-300, 10**400, "\x1b[2J", "../../etc/passwd", "1e999"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=5,
)


def paths(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where a value of parsed JSON can be replaced."""
    found = [at] if at else []
    items = value.items() if isinstance(value, dict) else ()
    items = enumerate(value) if isinstance(value, list) else items
    for key, child in items:
        found += paths(child, (*at, key))
    return found


PATHS = paths(json.loads(TEXT))


def loads_soundly_or_is_refused(path: Path) -> None:
    try:
        table = LatencyTable.load(path)
    except UserError as error:
        assert str(error)
        return
    for op, row in table.rows.items():
        assert 0 < row.median_ms < math.inf and 0 <= row.p10_ms <= row.p90_ms < math.inf
        assert min(op.in_channels, op.out_channels, op.in_hw, op.out_hw, op.kernel, op.stride) > 0
        assert op.key
    for correction in table.corrections.values():
        for name, value in correction.coefficients.items():
            assert math.isfinite(value) and (value >= 0 or name == "overhead_ms")
        assert 0 <= correction.interval_fraction < math.inf
        assert all(0 < net.measured_ms < math.inf for net in correction.validation.nets)
    assert all(text.isprintable() for text in (table.device.name, *table.warnings))
    again = path.with_suffix(".again.json")
    table.save(again)
    assert LatencyTable.load(again) == table


@FAST
@given(where=st.sampled_from(PATHS), value=junk)
def test_any_value_may_be_replaced_by_junk(where: tuple[Any, ...], value: Any, tmp_path: Path):
    data = json.loads(TEXT)
    target = data
    for key in where[:-1]:
        target = target[key]
    target[where[-1]] = value
    path = tmp_path / "t.json"
    path.write_text(json.dumps(data))
    loads_soundly_or_is_refused(path)


@FAST
@given(where=st.sampled_from(PATHS))
def test_any_value_may_be_missing(where: tuple[Any, ...], tmp_path: Path):
    data = json.loads(TEXT)
    target = data
    for key in where[:-1]:
        target = target[key]
    del target[where[-1]]
    path = tmp_path / "t.json"
    path.write_text(json.dumps(data))
    loads_soundly_or_is_refused(path)


@FAST
@given(at=st.integers(0, len(TEXT) - 1), byte=st.integers(0, 255))
def test_any_byte_may_be_flipped(at: int, byte: int, tmp_path: Path):
    raw = bytearray(TEXT.encode())
    raw[at] = byte
    path = tmp_path / "t.json"
    path.write_bytes(bytes(raw))
    loads_soundly_or_is_refused(path)


@FAST
@given(length=st.integers(0, len(TEXT) - 3))
def test_a_file_cut_anywhere_is_refused(length: int, tmp_path: Path):
    path = tmp_path / "t.json"
    path.write_text(TEXT[:length])
    with pytest.raises(UserError):
        LatencyTable.load(path)


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 200_000,
        b'{"a":' * 200_000,
        b"{" + b'"x": 1, ' * 10 + b"}",
        TEXT.replace("0.01,", "1e999,").encode(),
        TEXT.replace("0.01,", "9" * 5000 + ",").encode(),
        TEXT.replace("simulated-golden", "simulated-\\u001b[2J").encode(),
        TEXT.replace('"in_channels": 3', '"in_channels": -3').encode(),
        TEXT.replace('"in_channels": 3', '"in_channels": 0').encode(),
        TEXT.replace('"in_channels": 3', '"pad_more": -1, "in_channels": 3').encode(),
        TEXT.replace('"in_hw": 16', '"in_hw": 999999999999').encode(),
        TEXT.replace('"scale": 1.05', '"scale": -1.05').encode(),
        TEXT.replace('"measured_ms": 0.0655', '"measured_ms": 0').encode(),
        TEXT.replace('"threads": 2', '"threads": 0').encode(),
        TEXT.replace('"batch": 1', '"batch": -1').encode(),
        b"\xff\xfe\x00",
        b"\x80\x04\x95",  # a pickle
        b"",
        b"null",
        b"7",
    ],
)
def test_hostile_files_are_refused(content: bytes, tmp_path: Path):
    assert content != TEXT.encode()
    (tmp_path / "t.json").write_bytes(content)
    with pytest.raises(UserError):
        LatencyTable.load(tmp_path / "t.json")


@pytest.mark.parametrize("share", ["within_5", "within_10"])
def test_shares_of_small_errors_are_those_of_the_listed_networks(share: str, tmp_path: Path):
    """A file that lists all of its networks cannot claim that more of them are estimated well."""
    table = LatencyTable.load(GOLDEN)
    (correction,) = table.corrections.values()
    nets = tuple(NetTiming(net.codes, 1.0, 1.5) for net in correction.validation.nets)
    bad = replace(correction.validation.forecast, mape=0.5, max=0.5, p95=0.5)
    for value in (0.0, 1.0):
        fit = replace(bad, **{share: value})
        data = replace(correction.validation, forecast=fit, nets=nets)
        wrong = rf"validation\.forecast\.{share}: expected at most 0: the estimates of this share"
        with pytest.raises(ValueError, match=wrong) if value else contextlib.nullcontext():
            replace(correction, validation=data, n_fit=len(nets))
    assert correction.validation.forecast.within_5 is None  # as an older version wrote it
    assert correction.validation.within == (1.0, 1.0)


def test_huge_files_and_folders_are_refused_unread(tmp_path: Path):
    huge = tmp_path / "t.json"
    with open(huge, "wb") as stream:
        stream.truncate(1 << 40)  # sparse: a terabyte that takes no room
    with pytest.raises(UserError, match="too large"):
        LatencyTable.load(huge)
    with pytest.raises(UserError):
        LatencyTable.load(tmp_path)


# --- what belongs together ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("device", "word"),
    [
        ({"batch": 8}, "batch 1 and 8"),
        ({"threads": 4}, "threads 2 and 4"),
        ({"precision": "int8"}, "precision fp32 and int8"),
        ({"runtime": "torch"}, "runtime onnxruntime and torch"),
        ({"provider": "CUDAExecutionProvider"}, "provider"),
        ({"name": "simulated-b"}, "device simulated-golden and simulated-b"),
    ],
)
def test_what_forbids_a_merge_is_named(device: dict[str, Any], word: str):
    table = LatencyTable.load(GOLDEN)
    other = replace(table, device=replace(table.device, **device))
    with pytest.raises(UserError, match=word):
        table.merge(other)
    assert word in compare_tables(table, other)["settings"]


def test_another_runtime_version_forbids_a_merge():
    table = LatencyTable.load(GOLDEN)
    newer = replace(table, facts={**table.facts, "runtime_version": "1.99"})
    with pytest.raises(UserError, match="runtime_version"):
        table.merge(newer)
    assert table.merge(table) == table


def test_a_comparison_says_how_much_and_where():
    table = LatencyTable.load(GOLDEN)
    op = OpSpec("conv", 3, 8, 16, 16, kernel=3, padding=1, act="relu")
    assert op in table.rows
    slower = {o: Timing(2 * r.median_ms, r.p10_ms, 9.0, 9.0, r.n) for o, r in table.rows.items()}
    slower[op] = replace(slower[op], median_ms=0.1)
    relation = compare_tables(table, replace(table, rows=slower))
    assert relation["median_ratio"] == pytest.approx(2)
    assert relation["most_changed"][0].startswith(str(op)) and "x10.00" in str(relation)
    assert relation["settings"].startswith("equal")
    counts = f"found: {len(table.rows)} and 0 operators"
    with pytest.raises(UserError, match=rf"(?s)no operator.*{counts}.*fix: compare tables of one"):
        compare_tables(table, replace(table, rows={}))


def hwnas(*arguments: object) -> int:
    """Exit status of a command."""
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if isinstance(done.exception, HwnasError):
        return done.exception.exit_code
    assert done.exception is None, done.output
    return done.exit_code


@pytest.mark.parametrize(
    ("bounds", "status"),
    [
        ((), 0),
        (("--max-mape", "0.01", "--max-p95", "0.02", "--min-tau", "0.95"), 0),
        (("--max-mape", "0.0099"), 3),
        (("--max-p95", "0.0199"), 3),
        (("--min-tau", "0.951"), 3),
    ],
)
def test_a_table_that_misses_a_bound_ends_in_3(bounds: tuple[str, ...], status: int):
    """The golden table's mape is 1 %, its p95 2 %, its tau 0.95."""
    assert hwnas("table", "validate", GOLDEN, *bounds) == status


def test_merged_tables_have_the_rows_of_both_and_others_are_refused(tmp_path: Path):
    table = LatencyTable.load(GOLDEN)
    ops = sorted(table.rows, key=lambda op: op.key)
    parts = [tmp_path / "a.json", tmp_path / "b.json"]
    for path, some in zip(parts, (ops[:1], ops[1:]), strict=True):
        replace(table, rows={op: table.rows[op] for op in some}).save(path)
    assert hwnas("table", "merge", *parts, "--out", tmp_path / "c.json") == 0
    assert LatencyTable.load(tmp_path / "c.json") == table
    replace(table, device=replace(table.device, threads=4)).save(parts[1])
    assert hwnas("table", "merge", *parts, "--out", tmp_path / "d.json") == 1
    assert not (tmp_path / "d.json").exists()


def test_a_table_of_no_thread_cannot_be():
    table = LatencyTable.load(GOLDEN)
    with pytest.raises(UserError, match="threads >= 1"):
        replace(table, device=DeviceSpec("simulated-golden", threads=0))
