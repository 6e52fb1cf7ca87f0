"""Records load strictly; fixtures of every schema version stay loadable."""

from __future__ import annotations

from pathlib import Path

import pytest

from hwnas.core.errors import UserError
from hwnas.core.records import dump, load
from hwnas.core.store import read_json
from hwnas.interfaces import Constraint, DataInfo, DeviceSpec, Evaluation
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
    "bounds", [{}, {"max": 1.0, "max_fraction_of_largest": 0.5}, {"max": 0.0}, {"max": -1.0}]
)
def test_a_constraint_has_exactly_one_positive_bound(bounds: dict):
    with pytest.raises(ValueError, match="one of"):
        Constraint("macs", **bounds)
    with pytest.raises(ValueError, match="at most 1"):
        Constraint("macs", max_fraction_of_largest=1.5)


def test_op_keys_ignore_fields_at_their_default():
    plain = OpSpec("pool", 8, 8, 4, 1)
    assert plain.key == OpSpec("pool", 8, 8, 4, 1, act="none", skip=False).key
    assert plain.key != OpSpec("pool", 8, 8, 5, 1).key
    assert RECORDS["op_spec"].key == "0b47a555c7ffd123"
