"""Tables survive a round trip and refuse what is malformed or does not belong together."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import hwnas
from hwnas.core.env import host_facts
from hwnas.core.errors import UserError
from hwnas.interfaces import DeviceSpec
from hwnas.latency.samples import Timing
from hwnas.latency.shipped import latency_table
from hwnas.latency.table import LatencyTable
from hwnas.measure.tables import provenance
from hwnas.spaces.ops import OpSpec

GOLDEN = Path(__file__).parent.parent / "golden" / "latency_table_v1.json"
SPACE = "mobilenet_tiny-00000000"
OP = OpSpec("conv", 3, 8, 16, 16, kernel=3, padding=1, act="relu")


@pytest.fixture
def table() -> LatencyTable:
    return LatencyTable.load(GOLDEN)


def test_a_table_of_version_1_stays_loadable(table: LatencyTable):
    assert table.device == DeviceSpec("simulated-golden", threads=2)
    assert table.rows[OP] == Timing(0.01, 0.009, 0.011, 0.012, 640)
    assert len(table.rows) == 3
    correction = table.corrections[SPACE]
    assert correction.coefficients == {
        "overhead_ms": 0.001,
        "scale": 1.05,
        "ms_per_million_macs": 0.0005,
    }
    assert correction.validation.nets[1].codes == (1, 1, 2)
    assert table.facts["affinity"] == [0, 1]


def test_saving_gives_the_same_file_with_one_row_per_line(table: LatencyTable, tmp_path: Path):
    shuffled = replace(table, rows=dict(reversed(table.rows.items())))
    shuffled.save(tmp_path / "t.json")
    assert (tmp_path / "t.json").read_text() == GOLDEN.read_text()
    assert sum('"op"' in line for line in GOLDEN.read_text().splitlines()) == 3


def change(path: tuple[Any, ...], value: Any) -> Any:
    """Golden data with the value at `path` replaced, or removed where `value` is ...."""
    data = json.loads(GOLDEN.read_text())
    target = data
    for key in path[:-1]:
        target = target[key]
    if value is ...:
        del target[path[-1]]
    else:
        target[path[-1]] = value
    return data


@pytest.mark.parametrize(
    ("path", "value", "word"),
    [
        (("rows", 0, "median_ms"), -0.01, "median_ms"),
        (("rows", 0, "median_ms"), 0.0, "median_ms"),
        (("rows", 0, "median_ms"), "0.01", "median_ms"),
        (("rows", 0, "p10_ms"), 0.02, "p10_ms"),
        (("rows", 0, "p95_ms"), 0.005, "p95_ms"),
        (("rows", 0, "n"), 0, "n >= 1"),
        (("rows", 0, "median_ms"), float("nan"), "NaN"),
        (("rows", 0, "median_ms"), float("inf"), "Infinity"),
        (("rows", 0, "mean_ms"), 0.01, "mean_ms"),
        (("rows", 0, "op", "colour"), 1, "colour"),
        (("rows", 0, "op", "kind"), "deconv", "kind"),
        (("rows", 0, "n"), ..., "n"),
        (("surprise",), 1, "surprise"),
        (("source",), "guessed", "source"),
        (("source",), "measured", "simulated"),
        (("schema_version",), 2, "newer"),
        (("schema_version",), ..., "schema_version"),
        (
            ("corrections", SPACE, "interval_fraction"),
            -0.1,
            "interval_fraction",
        ),
        (("corrections", SPACE, "coefficients", "magic"), 1.0, "coefficients"),
        (("rows",), [], None),
    ],
)
def test_a_malformed_table_is_refused(path: Any, value: Any, word: str | None, tmp_path: Path):
    target = tmp_path / "t.json"
    target.write_text(json.dumps(change(path, value)))
    if word is None:
        assert not LatencyTable.load(target).rows  # empty, but well-formed
        return
    with pytest.raises(UserError, match=word):
        LatencyTable.load(target)


def test_duplicate_rows_are_refused_even_when_spelled_differently(tmp_path: Path):
    data = json.loads(GOLDEN.read_text())
    double = json.loads(json.dumps(data["rows"][0]))
    double["op"]["stride"] = 1  # the default, written out
    data["rows"].append(double)
    (tmp_path / "t.json").write_text(json.dumps(data))
    with pytest.raises(UserError, match="duplicate"):
        LatencyTable.load(tmp_path / "t.json")


def test_a_truncated_file_is_refused(tmp_path: Path):
    (tmp_path / "t.json").write_text(GOLDEN.read_text()[:500])
    with pytest.raises(UserError, match="not valid JSON"):
        LatencyTable.load(tmp_path / "t.json")


def test_merging_keeps_all_rows_and_prefers_the_first(table: LatencyTable):
    timing = Timing(1.0, 1.0, 1.0, 1.0, 1)
    other_op = OpSpec("pool", 16, 16, 8, 1)
    other = replace(table, rows={OP: timing, other_op: timing}, corrections={}, warnings=("w",))
    merged = table.merge(other)
    assert set(merged.rows) == {*table.rows, other_op}
    assert merged.rows[OP] == table.rows[OP]
    covers = tuple(sorted(op.key for op in table.rows))  # and not what the other one added
    assert merged.corrections == {SPACE: replace(table.corrections[SPACE], covers=covers)}
    assert table.merge(table).corrections == table.corrections
    assert merged.warnings == (*table.warnings, "w")


@pytest.mark.parametrize(
    "difference",
    [
        {"device": DeviceSpec("simulated-golden", threads=1)},
        {"device": DeviceSpec("simulated-golden", threads=2, batch=2)},
        {"device": DeviceSpec("simulated-golden", threads=2, precision="int8")},
        {"device": DeviceSpec("simulated-other", threads=2)},
        {"facts": {"cpu": "Fake 1", "runtime_version": "1.21.0"}},
        {"facts": {"cpu": "Fake 2", "runtime_version": "1.20.0"}},
    ],
)
def test_tables_of_different_devices_are_not_merged(table: LatencyTable, difference: Any):
    with pytest.raises(UserError, match="cannot merge"):
        table.merge(replace(table, **difference))


def test_a_table_says_how_it_was_obtained() -> None:
    table = latency_table("amd-epyc-2vcpu-mobilenet_v3")
    shipped = {**table.facts, "cpu": host_facts()["cpu"]}
    assert provenance(replace(table, facts=shipped)) == f"measured on {shipped['cpu']}"
    assert str(table.facts["source"]).endswith("of this repository")
    table = replace(table, facts={k: v for k, v in table.facts.items() if k != "source"})
    elsewhere = {**table.facts, "cpu": "another processor"}
    assert provenance(replace(table, facts=elsewhere)) == "measured on another processor"
    here = {**table.facts, "cpu": host_facts()["cpu"]}
    assert provenance(replace(table, facts=here)) == "measured here"
    board = replace(table.device, transport="ssh")
    assert provenance(replace(table, facts=here, device=board)) == f"measured on {here['cpu']}"
    assert provenance(latency_table("pixel1-proxyless")) == "published"
    assert provenance(latency_table("titanx-b1-fbnet")) == "fitted to published networks"
    own = {"source": "own timings: a.csv"}
    assert provenance(replace(table, facts=own, source="fitted")) == "fitted to own timings"
    assert provenance(replace(table, facts=own, source="converted")) == "own timings"
    carried = replace(table, facts={"transferred_from": "local"}, source="transferred")
    assert provenance(carried) == "transferred from local"
    for row in hwnas.table_list():
        shown = hwnas.table_show(row["table"])
        assert shown.facts["provenance"] == row["provenance"] == shown.title.split(", ")[-1]
