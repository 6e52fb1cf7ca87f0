"""The YAML space: what it builds, and errors that carry the path to the bad choice."""

from __future__ import annotations

from pathlib import Path

import pytest

from hwnas.core.errors import UserError
from hwnas.pipeline.config import load_config, read_config_data
from hwnas.spaces.load import build_space
from hwnas.spaces.lowering import lower
from tests.zoo import MIXED, mobile_space

PLAIN = """
name: mobile
resolutions: [32]
stem: {widths: [8]}
stages:
  - {widths: [16], kernels: [3], expands: [2], stride: 2}
  - {widths: [24], depths: [1, 2], kernels: [5, 3], expands: [4], stride: 2}
head: {width: 64}
"""


def test_a_stage_says_everything_about_its_blocks():
    space = mobile_space(PLAIN)
    stem, first, second, head, pool, classifier = lower(space, space.smallest()).ops
    assert (stem.out_channels, stem.stride, stem.act, stem.out_hw) == (8, 2, "relu6", 16)
    assert (first.mid_channels, first.out_channels, first.out_hw, first.skip) == (16, 16, 8, False)
    assert (second.kernel, second.mid_channels, second.in_hw, second.out_hw) == (3, 64, 8, 4)
    assert (head.in_channels, head.out_channels, pool.in_hw) == (24, 64, 4)
    assert (classifier.in_channels, classifier.out_channels) == (64, 10)
    assert lower(space, space.largest()).ops[3].skip  # the second block of the second stage


def test_every_feature_reaches_the_operators():
    space = mobile_space(MIXED)
    ops = lower(space, space.largest())
    assert {op.out_act for op in ops} == {"none", "swish"}
    projected = [op for op in ops if op.has_projection]
    assert [op.stride for op in projected] == [2]
    assert any(op.groups == 2 for op in lower(space, space.smallest()))
    feature = next(op for op in ops if op.norm == "bias")
    assert (feature.in_hw, feature.in_channels, feature.out_channels) == (1, 72, 48)
    assert any(op.se_channels for op in ops)


def test_the_order_of_choices_in_yaml_does_not_matter():
    assert mobile_space(PLAIN).id == mobile_space(PLAIN.replace("[5, 3]", "[3, 5, 3]")).id


@pytest.mark.parametrize(
    ("before", "after", "path", "message"),
    [
        ("kernels: [5, 3]", "kernels: [4, 3]", "stages.1.kernels", "expected 0, 1, 2, 3, 5"),
        ("resolutions: [32]", "resolutions: [0]", "resolutions.0", "a number of at least 8"),
        ("widths: [24]", "widths: [24.5]", "stages.1.widths.0", "expected a whole number"),
        ("expands: [4]", "expand: [4]", "stages.1.expand", "expands"),
        ("head: {width: 64}", "head: {}", "head", "one of `width` and `expand`, found neither"),
        ("expands: [2]", "ops: [{name: a}]", "stages.0", "`kernels` and `expands`, found both"),
        (
            "kernels: [3], expands: [2]",
            "ops: [{name: a}, {name: b, kind: dsconv, expand: 6}]",
            "stages.0.ops.1",
            "neither `expand` nor `groups` for the kind dsconv, found expand 6 and groups 1",
        ),
        ("kernels: [3], expands: [2],", "", "stages.0", "`kernels` and `expands`, found neither"),
        ("head: {width: 64}", "head: {width: 64, expand: 6}", "head", "`expand`, found both"),
        (
            "head: {width: 64}",
            "head: {width: 64, feature_bias: true, feature_bn: true}",
            "head",
            "at most one of `feature_bias` and `feature_bn`, found both",
        ),
    ],
)
def test_errors_in_yaml_carry_the_path(before: str, after: str, path: str, message: str):
    assert before in PLAIN
    with pytest.raises(UserError) as caught:
        mobile_space(PLAIN.replace(before, after))
    assert path in str(caught.value)
    assert message in str(caught.value)


def test_all_errors_come_at_once():
    broken = PLAIN.replace("[5, 3]", "[4]").replace("widths: [8]", "widths: []")
    with pytest.raises(UserError) as caught:
        mobile_space(broken)
    assert "stages.1.kernels" in str(caught.value)
    assert "stem.widths" in str(caught.value)


def test_a_stride_on_a_single_pixel_is_refused():
    deep = PLAIN.replace("[32]", "[8]").replace(
        "head:", "  - {widths: [24], kernels: [3], expands: [2], stride: 2}\nhead:"
    )
    with pytest.raises(UserError, match=r"invalid stages.*one pixel") as caught:
        mobile_space(deep)
    assert "where: stages.2.stride" in str(caught.value)
    assert "8 px" in str(caught.value)


@pytest.mark.parametrize(
    ("ops", "path"),
    [
        ("ops: [{name: a}, {name: b, groups: 3}]", "stages.0.ops.1.groups"),
        ("first_ops: [{name: b, groups: 5}], ops: [{name: a}]", "stages.0.first_ops.0.groups"),
        ("ops: [{name: b, groups: 2, expand: 1.1}]", ""),  # 8 channels stay 8
    ],
)
def test_groups_that_do_not_divide_channels_are_refused(ops: str, path: str):
    text = PLAIN.replace("kernels: [3], expands: [2]", ops)
    if not path:
        mobile_space(text)
        return
    with pytest.raises(UserError, match="groups do not divide") as caught:
        mobile_space(text)
    assert f"where: {path}" in str(caught.value)


def test_groups_must_divide_the_width_that_the_expansion_is_rounded_to():
    """21 x 3 = 63 channels can be split in three, the 64 that they are rounded to cannot."""
    text = PLAIN.replace("[8]", "[21]").replace("[16]", "[21]")
    text = text.replace("kernels: [3], expands: [2]", "ops: [{name: a, groups: 3, expand: 3}]")
    with pytest.raises(UserError, match="64 channels") as caught:
        mobile_space(text)
    assert "where: stages.0.ops.0.groups" in str(caught.value)


def test_a_space_file_is_a_space(tmp_path: Path):
    path = tmp_path / "mine.yaml"
    path.write_text(PLAIN)
    space = build_space(str(path), {"resolutions": [48]}, num_classes=7, in_channels=1)
    assert space.id == mobile_space(PLAIN.replace("[32]", "[48]"), num_classes=7, in_channels=1).id
    path.write_text(PLAIN.replace("name: mobile\n", ""))
    with pytest.raises(UserError, match="needs `name:`"):
        build_space(str(path), num_classes=7)


def test_an_experiment_takes_a_shipped_space_with_changes():
    data, where = read_config_data("digits")
    data["space"] = {"name": "mobilenet_v2", "resolutions": [64]}
    config = load_config(data, where=where)
    assert config.space.resolutions == (64,)
    assert len(config.space.stages) == 7
    data["space"] = "mobilenet_v2"
    assert load_config(data, where=where).space.resolutions == (224,)
