"""The space `timm`: its largest arch is the network, and what is below it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hwnas.core.errors import UserError
from hwnas.core.rng import rng
from hwnas.spaces.chains import divisible
from hwnas.spaces.index import enumerate_ops
from hwnas.spaces.load import build_space
from hwnas.spaces.lowering import lower, resolution
from hwnas.spaces.ops import OpSpec
from hwnas.spaces.padding import same_padding
from hwnas.spaces.published import published_network, published_networks
from hwnas.spaces.space import SearchSpace


def space(model: str, **settings: Any) -> SearchSpace:
    fixed = {"depths": [], "expands": [], "kernels": [], "width_ratios": [], "resolutions": [64]}
    return build_space("timm", {"model": model, **fixed, **settings}, num_classes=10)


def by_slot(space: SearchSpace, arch: Any) -> dict[str, OpSpec]:
    slots = zip(space.macro.slot_names(), space.macro.lower_slots(arch.codes), strict=True)
    return {name: op for name, op in slots if op is not None}


def with_values(space: SearchSpace, **values: Any) -> Any:
    """The largest arch but for the choices `a__b` named by `values`."""
    changes = {name.replace("__", "."): [value] for name, value in values.items()}
    return space.restrict(changes).largest()


@pytest.mark.parametrize("model", published_networks())
def test_the_largest_arch_is_the_network(model: str) -> None:
    network = published_network(model)
    elastic = build_space("timm", {"model": model}, num_classes=10)
    ops = by_slot(elastic, elastic.largest())
    assert ops["stem"].in_hw == network.weights.px == max(elastic.macro.resolutions)
    width = network.stem.out
    for s, blocks in enumerate(network.stages):
        for b, block in enumerate(blocks):
            op = ops[f"stage{s}.block{b}"]
            assert (op.in_channels, op.out_channels, op.kernel) == (width, block.out, block.kernel)
            assert op.mid_channels == (width if block.kind == "dsconv" else block.mid)
            assert (op.kind, op.start_kernel) == (block.kind, block.start)
            assert (op.se_channels, op.skip, op.stride) == (block.se, block.skip, block.stride)
            width = block.out
    assert ("head" in ops, "feature" in ops) == (bool(network.head), bool(network.feature))


def test_without_anything_listed_there_is_one_arch() -> None:
    only = space("mobilenetv2_100")
    assert only.size() == 1 and [choice.name for choice in only.choices] == ["resolution"]


def test_listed_values_are_offered_below_the_networks_own() -> None:
    elastic = space("mobilenetv3_large_100", depths=[1, 2, 9], kernels=[3, 7], expands=[2, 6, 8])
    values = {choice.name: choice.values for choice in elastic.choices}
    assert "stage0.depth" not in values and values["stage1.depth"] == (1, 2)
    assert values["stage2.depth"] == (1, 2, 3) and values["stage3.depth"] == (1, 2, 4)
    assert values["stage2.block0.kernel"] == (3, 5)
    assert "stage1.block0.kernel" not in values  # 3 px already
    assert values["stage1.block0.expand"] == (2, 4)  # 64 / 16
    assert values["stage3.block1.expand"] == (2, 2.5)  # 200 / 80
    conditions = {choice.name: choice.parent_codes for choice in elastic.choices}
    assert conditions["stage3.block0.expand"] == ()  # always there
    assert conditions["stage3.block1.expand"] == (1, 2) and conditions["stage3.block2.expand"] == (
        2,
    )


def test_stages_that_residual_connections_join_have_one_width() -> None:
    elastic = space("mobilenetv3_large_100", width_ratios=[0.5, 1])
    widths = {choice.name: choice.values for choice in elastic.choices if choice.role == "width"}
    assert widths == {
        "stem.width": (8, 16),  # with stage 0, whose block adds its input back
        "stage1.width": (16, 24),  # half of 24 in multiples of 8, not 10 % below
        "stage2.width": (24, 40),
        "stage3.width": (40, 80),
        "stage4.width": (56, 112),
        "stage5.width": (80, 160),
        "head.width": (480, 960),
        "feature.width": (640, 1280),
    }
    ops = by_slot(elastic, with_values(elastic, stem__width=8))
    assert (ops["stem"].out_channels, ops["stage0.block0"].out_channels) == (8, 8)
    assert ops["stage0.block0"].skip and ops["stage1.block0"].in_channels == 8


def test_hidden_channels_follow_the_input_up_to_the_networks_own() -> None:
    elastic = space("efficientnet_b0", width_ratios=[0.5, 1], expands=[3])
    own = by_slot(elastic, elastic.largest())["stage2.block1"]
    assert (own.in_channels, own.mid_channels, own.se_channels) == (40, 240, 10)
    for changes, channels in {
        ("stage2__block1__expand", 3): (40, 120, 5),
        ("stage2__width", 24): (24, 144, 6),
    }.items():
        op = by_slot(elastic, with_values(elastic, **dict([changes])))["stage2.block1"]
        assert (op.in_channels, op.mid_channels, op.se_channels) == channels
    narrow = space("mobilenetv2_035", width_ratios=[0.9, 1])
    for row in narrow.sample(50, rng=rng(0, "archs")):
        largest = by_slot(narrow, narrow.largest())
        for slot, op in by_slot(narrow, narrow.arch(row)).items():
            assert op.mid_channels <= largest[slot].mid_channels
            assert op.out_channels <= largest[slot].out_channels


def test_both_kernels_of_universal_bottlenecks_are_elastic() -> None:
    elastic = space("mobilenetv4_conv_small", kernels=[3], width_ratios=[0.5, 1], depths=[1])
    values = {choice.name: choice.values for choice in elastic.choices}
    assert values["stage2.block0.start"] == values["stage2.block0.kernel"] == (3, 5)
    assert "stage2.block1.start" not in values and "stage2.block5.kernel" not in values  # none
    assert values["stage1.width"] == (48, 96) and values["stage1.block1.width"] == (32, 64)
    assert "stage0.depth" in values and "stage1.depth" not in values  # of two widths
    ops = by_slot(elastic, with_values(elastic, stage2__block0__start=3))
    assert ops["stage2.block0"].kernels == (3, 5) and ops["stage1.block1"].in_channels == 96


def test_operators_that_are_the_same_are_offered_once() -> None:
    elastic = space("mobilenetv2_100", expands=[2, 2.01, 5.9, 6])
    values = {choice.name: choice.values for choice in elastic.choices}
    assert values["stage2.block1.expand"] == (2, 6)  # 64, 64, 192, 192 channels
    assert values["stage1.block0.expand"] == (2, 6)  # 5.9: 96 as 6


@pytest.mark.parametrize("hw", range(1, 12))
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
def test_same_padding_is_tensorflows(hw: int, stride: int, kernel: int) -> None:
    """The output has ceil(hw / stride) px, and the zeros of a side differ by one at most."""
    before, more = same_padding(hw, kernel, stride)
    n_out = -(-hw // stride)
    assert (hw + 2 * before + more - kernel) // stride + 1 == n_out
    assert more in (0, 1)
    fewer = 2 * before + more - 1  # one zero less is not enough
    assert fewer < 0 or (n_out - 1) * stride + kernel > hw + fewer


@pytest.mark.parametrize("px", [64, 65])
def test_padding_follows_the_network_or_the_setting(px: int) -> None:
    def pads(model: str, **settings: Any) -> set[tuple[int, int, int]]:
        found = space(model, resolutions=[px], **settings)
        ops = lower(found, found.largest()).ops
        return {(op.kernel, op.padding, op.pad_more) for op in ops if op.stride == 2}

    symmetric = {(3, 1, 0), (5, 2, 0)}
    assert pads("efficientnet_lite0") == pads("tf_efficientnet_lite0", pad_mode="symmetric")
    assert pads("efficientnet_lite0") == symmetric
    same = pads("tf_efficientnet_lite0")
    assert same == pads("efficientnet_lite0", pad_mode="tf_same")
    assert same == (symmetric if px % 2 else {(3, 0, 1), (5, 1, 1)})


def test_the_identity_is_that_of_the_geometry() -> None:
    """Licence, home and name of a network do not make another space; padding does."""
    first = space("mobilenetv2_100")
    network = _as_data("mobilenetv2_100")
    network |= {"name": "other", "weights": {**network["weights"], "licence": "", "home": ""}}
    assert space_of(network).id == first.id
    assert space("mobilenetv2_100", pad_mode="tf_same").id != first.id


def test_every_arch_of_many_is_lowered_alike_by_the_index() -> None:
    elastic = build_space("timm", {"model": "hardcorenas_a"}, num_classes=10)
    ops = enumerate_ops(elastic)
    codes = elastic.sample(20, rng=rng(0, "archs"))
    assert {op for row in codes for op in lower(elastic, elastic.arch(row)).ops} <= set(ops)
    assert len({resolution(elastic, elastic.arch(row)) for row in codes}) > 1
    macs = elastic.cost(elastic.codes([elastic.smallest(), elastic.largest()]), "macs")
    assert (elastic.cost(codes, "macs") >= macs[0]).all() and np.diff(macs) > 0
    assert divisible(12) == 16


# --- bad input --------------------------------------------------------------------------------


def _as_data(model: str) -> dict[str, Any]:
    from hwnas.core.records import dump

    return dump(published_network(model), versioned=False)


def space_of(network: dict[str, Any], **settings: Any) -> SearchSpace:
    fixed = {"depths": [], "expands": [], "kernels": [], "width_ratios": [], "resolutions": [64]}
    data = {"network": network, **fixed, **settings}
    return build_space("timm", data, num_classes=10)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "mobilenetv2_10"}, r"unknown network(?s:.)*did you mean 'mobilenetv2_1"),
        ({"model": "../../etc/passwd"}, "unknown network"),
        ({"model": None}, "one of `model` .see .* and `network`, found neither"),
        ({"resolutions": [8]}, "the resolution is too small(?s:.)*a map of 1 px in .* at 8 px"),
        ({"resolutions": [16]}, "the resolution is too small"),
        ({"width_ratios": [1.5]}, r"width_ratios(?s:.)*a number of at most 1"),
        ({"width_ratios": [0]}, r"width_ratios(?s:.)*a number above 0"),
        ({"depths": [0]}, r"depths(?s:.)*a number of at least 1"),
        ({"kernels": [4]}, "kernels"),
        ({"pad_mode": "valid"}, "pad_mode"),
        ({"network": {"name": "x"}}, "network"),
    ],
)
def test_bad_settings_say_what_is_wrong(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        space(**{"model": "mobilenetv2_100", **settings})


def test_both_a_model_and_a_network_are_refused() -> None:
    with pytest.raises(UserError, match=r"one of `model` .see .* and `network`, found both"):
        space_of(_as_data("mobilenetv2_100"), model="mobilenetv2_100")


@pytest.mark.parametrize(
    ("at", "change", "message"),
    [
        ((), {"bn_eps": 0.0}, "bn_eps"),
        ((), {"bn_eps": float("nan")}, "bn_eps|valid"),
        ((), {"stages": []}, "stages"),
        ((), {"code": "import os"}, "code"),
        ((), {"name": "../x"}, "name"),
        (("stem",), {"out": 0}, "stem.out"),
        (("stem",), {"out": 10**9}, "stem.out"),
        (("stem",), {"out": True}, "stem.out"),
        (("stem",), {"stride": 3}, "stem.stride"),
        (("weights",), {"px": 10**6}, "weights.px"),
        (("weights",), {"std": [0, 1, 1]}, "weights.std"),
        (("weights",), {"home": "a\x1b[2J"}, "weights.home"),
        (("stages", 1, 1), {"kernel": 0}, "only in a `uib`"),
        (("stages", 1, 1), {"start": 3}, "only in a `uib`"),
        (("stages", 1, 0), {"kind": "uib", "kernel": 0}, "above 0 in a block with a stride"),
        (
            ("stages", 1, 0),
            {"kind": "conv", "mid": 0, "se": 8},
            "no SE and no `out_act` in a `conv`",
        ),
        (("stages", 1, 1), {"mid": 0}, "`mid` above 0 in every `mbconv`(?s:.)*network.stages.1.1"),
        (("stages", 0, 0), {"mid": 8}, "no `mid` in a `dsconv`"),
        (("stages", 1, 1), {"out": 32}, "the same `out` in all blocks(?s:.)*network.stages.1.1"),
        (("stages", 1, 1), {"stride": 2}, "stride 1 in all blocks of a stage but the first"),
        (("stages", 1, 0), {"skip": True}, "`skip` only with stride 1"),
        (("stages", 1, 0), {"kernel": 4}, r"stages.1.0.kernel"),
        (("stages", 1, 0), {"act": "gelu"}, r"stages.1.0.act"),
    ],
)
def test_hostile_networks_are_refused(
    at: tuple[str | int, ...], change: dict[str, Any], message: str
) -> None:
    network = _as_data("mobilenetv2_100")
    part: Any = network
    for key in at:
        part = part[key]
    part |= change
    with pytest.raises(UserError, match=message):
        space_of(network)
