"""Records load strictly; fixtures of every schema version stay loadable."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest

from hwnas.core.errors import Invalid, UserError, parts_of
from hwnas.core.records import RecordFile, dump, load
from hwnas.core.store import read_json
from hwnas.interfaces import Constraint, DataInfo, DeviceSpec, Evaluation
from hwnas.latency.samples import Timing
from hwnas.spaces.arch import Arch
from hwnas.spaces.ops import OpSpec

GOLDEN = Path(__file__).parent.parent / "golden"

ARCH = Arch("mobilenet_tiny-00000000", (1, 0, 2))
RECORDS = {
    "arch": ARCH,
    "op_spec": OpSpec(
        kind="mbconv",
        in_channels=16,
        out_channels=24,
        in_hw=16,
        out_hw=8,
        mid_channels=64,
        kernel=5,
        stride=2,
        padding=2,
        se_channels=16,
        act="hard_swish",
    ),
    "device_spec": DeviceSpec(name="pi4", transport="ssh", precision="int8", threads=4),
    "constraint": Constraint(metric="latency_ms", device="pi4", max=12.5),
    "data_info": DataInfo("digits", ("0", "1"), (0.5,), (0.25,), 16, {"train": 3, "val": 1}),
    "evaluation": Evaluation(
        arch=ARCH,
        top1=0.75,
        source="supernet",
        split="val",
        n_images=360,
        seed=0,
        val_loss=0.5,
        latency_ms={"local": 1.5},
    ),
}


@pytest.mark.parametrize("name", RECORDS)
def test_the_version_1_fixture_loads_to_the_record_it_was_made_from(name: str):
    data = read_json(GOLDEN / f"{name}_v1.json")
    assert load(type(RECORDS[name]), data, where=name) == RECORDS[name]


@pytest.mark.parametrize("name", RECORDS)
def test_a_round_trip_is_the_identity(name: str):
    record = RECORDS[name]
    assert load(type(record), dump(record), where=name) == record
    assert next(iter(dump(record))) == "schema_version"


@pytest.mark.parametrize("name", RECORDS)
def test_unknown_missing_and_mistyped_keys_are_refused(name: str):
    record = RECORDS[name]
    good = dump(record)
    with pytest.raises(UserError, match="surplus"):
        load(type(record), {**good, "surplus": 1}, where="here")
    first = next(key for key in good if key != "schema_version")
    with pytest.raises(UserError, match="here"):
        load(type(record), {**good, first: {"not": ["this"]}}, where="here")
    with pytest.raises(UserError):
        load(type(record), {k: v for k, v in good.items() if k != first}, where="here")


@pytest.mark.parametrize("version", [None, 0, -1, "1", True, 1.0])
def test_a_record_without_a_valid_version_is_refused(version: object):
    with pytest.raises(UserError, match="schema_version"):
        load(Arch, {**dump(ARCH), "schema_version": version}, where="x")


def test_a_newer_record_says_to_upgrade():
    with pytest.raises(UserError, match="upgrade hwnas"):
        load(Arch, {**dump(ARCH), "schema_version": 2}, where="x")


TIMING = {"median_ms": 2.0, "p10_ms": 1.0, "p90_ms": 3.0, "p95_ms": 3.5, "n": 4}


@pytest.mark.parametrize(
    ("changes", "expected", "found"),
    [
        ({"p95_ms": 1.0}, "p95_ms >= median_ms and n >= 1", "p95_ms 1, median_ms 2, n 4"),
        (
            {"p10_ms": 2.5},
            "0 <= p10_ms <= median_ms <= p90_ms and median_ms > 0",
            "p10_ms 2.5, median_ms 2, p90_ms 3",
        ),
        ({"n": 1.5}, "`n`: a whole number", "`n`: 1.5"),
        ({"median_ms": "2"}, "`median_ms`: a number", "`median_ms`: '2'"),
        ({"mean": 2.0}, "only known keys", "the unknown key `mean`"),
        ({"n": None, "mean": 1}, "`n`: a whole number; only known keys", "`n`: null; the unknown"),
    ],
)
def test_errors_separate_what_was_expected_from_what_was_found(
    changes: dict, expected: str, found: str
):
    with pytest.raises(UserError) as caught:
        load(Timing, {**TIMING, **changes}, where="table.json", versioned=False)
    head, *details = str(caught.value).splitlines()
    assert head == "not a valid timing"
    assert details[0] == f"  expected: {expected}"
    assert details[1].startswith(f"  found: {found}")
    assert details[2:] == ["  where: table.json"]


def test_a_missing_key_is_named():
    some = {key: value for key, value in TIMING.items() if key != "n"}
    with pytest.raises(UserError, match=r"expected: the key `n`\n  found: no key `n`"):
        load(Timing, some, where="x", versioned=False)


def test_errors_name_the_kind_of_record_without_class_names(tmp_path: Path):
    (tmp_path / "a.json").write_text('{"schema_version": 9}')
    with pytest.raises(UserError, match=r"^the file a.json was written by a newer hwnas\n"):
        RecordFile(tmp_path / "a.json", Arch).read()
    with pytest.raises(UserError, match=r"^not a valid device spec\n  expected: a JSON object"):
        load(DeviceSpec, [], where="x")
    with pytest.raises(UserError, match="not a valid latency table"):
        load(Arch, [], where="x", what="latency table")


@pytest.mark.parametrize(
    ("error", "text", "parts"),
    [
        (
            Invalid("1 to 3 rows", 4),
            "expected 1 to 3 rows, found 4",
            {"expected": "1 to 3 rows", "found": "4"},
        ),
        (
            Invalid("x", "y", "a.npz: rows"),
            "a.npz: rows: expected x, found y",
            {"expected": "a.npz: rows: x", "found": "a.npz: rows: y"},
        ),
        (
            Invalid("archs, found in one space", key="nets"),
            "nets: expected archs, found in one space",
            {"expected": "nets: archs, found in one space"},
        ),
        (
            ValueError("expected a, found b"),  # of another library: its text is not interpreted
            "expected a, found b",
            {"found": "expected a, found b"},
        ),
    ],
)
def test_an_error_has_the_parts_of_a_user_error(error: ValueError, text: str, parts: dict):
    assert str(error) == text
    assert parts_of(error) == parts
    assert parts_of(copy.copy(error)) == parts  # as when it is pickled


def test_a_missing_key_and_an_empty_text_are_explained():
    assert parts_of(KeyError("host")) == {"expected": "the key 'host'", "found": "no key 'host'"}
    assert parts_of(ValueError()) == {"found": "ValueError()"}


def test_a_changed_file_is_described_without_bare_hashes(tmp_path: Path):
    file = RecordFile(tmp_path / "a.json", Arch, is_sealed=True)
    file.write(ARCH)
    file.path.write_text(file.path.read_text().replace("2", "3"))
    with pytest.raises(UserError, match="was modified") as caught:
        file.read()
    assert caught.value.found == "other content: its hash is different"
    assert "`check`" in str(caught.value.expected)
    file.write(ARCH)
    file.path.write_text(json.dumps(json.loads(file.path.read_text()), indent=4))
    with pytest.raises(UserError, match="found: the same content, written in another way"):
        file.read()


@pytest.mark.parametrize("data", [None, [], 3, "x"])
def test_a_record_that_is_no_object_is_refused(data: object):
    with pytest.raises(UserError, match="expected: a JSON object"):
        load(Arch, data, where="x")


def test_numbers_must_be_finite_and_of_their_type():
    good = dump(RECORDS["evaluation"])
    for key, value in (("top1", "0.5"), ("top1", 75.0), ("n_images", 3.5), ("val_loss", True)):
        with pytest.raises(UserError):
            load(Evaluation, {**good, key: value}, where="x")
    with pytest.raises(UserError):
        load(Evaluation, {**good, "val_loss": float("nan")}, where="x")


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ({}, "one of .* found neither"),
        ({"max": 1.0, "max_fraction_of_largest": 0.5}, "one of .* found both"),
        ({"max": 0.0}, "above 0, found 0.0"),
        ({"max": -1.0}, "above 0, found -1.0"),
    ],
)
def test_a_constraint_has_exactly_one_positive_bound(bounds: dict, message: str):
    with pytest.raises(ValueError, match=message):
        Constraint("macs", **bounds)
    with pytest.raises(ValueError, match="at most 1"):
        Constraint("macs", max_fraction_of_largest=1.5)


def test_op_keys_ignore_fields_at_their_default():
    plain = OpSpec("pool", 8, 8, 4, 1)
    assert plain.key == OpSpec("pool", 8, 8, 4, 1, act="none", skip=False).key
    assert plain.key != OpSpec("pool", 8, 8, 5, 1).key
    assert RECORDS["op_spec"].key == "0b47a555c7ffd123"
