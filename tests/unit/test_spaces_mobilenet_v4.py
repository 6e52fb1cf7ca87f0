"""The space `mobilenet_v4`: the published networks are members, and every arch is timm's."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import timm
import torch
from timm.layers import BatchNormAct2d
from timm.models import MobileNetV3
from timm.models._efficientnet_blocks import UniversalInvertedResidual
from timm.models._efficientnet_builder import decode_arch_def
from torch import nn

from hwnas.core.errors import UserError
from hwnas.core.rng import rng
from hwnas.latency.transfer import operator_similarity
from hwnas.nets import definition
from hwnas.nets.features import features_only
from hwnas.nets.plain_net import Network
from hwnas.nets.subnet import build_subnet
from hwnas.predictors.graph import op_features
from hwnas.reporting.drawing import draw_network
from hwnas.spaces.arch import Arch
from hwnas.spaces.index import enumerate_ops
from hwnas.spaces.load import build_space
from hwnas.spaces.lowering import lower
from hwnas.spaces.ops import OpSpec, layers
from hwnas.spaces.space import SearchSpace
from tests.zoo import mobile_space

PUBLISHED = [  # name, variant, parameters, MACs at 224 px
    ("mobilenetv4_conv_small", "small", 3_774_024, 186.0e6),
    ("mobilenetv4_conv_small_050", "small", 2_238_952, 64.7e6),
    ("mobilenetv4_conv_medium", "medium", 9_715_512, 827.7e6),
]


def space(variant: str, px: int, **settings: Any) -> SearchSpace:
    data = {"variant": variant, "resolutions": [px], **settings}
    return build_space("mobilenet_v4", data, num_classes=1000)


def member(space: SearchSpace, model: nn.Module) -> Arch:
    """The arch whose widths, kernels and expansions are those of the modules of timm's model."""
    chosen: dict[str, list[int]] = {}
    for s, stage in enumerate(model.blocks):
        blocks = list(stage)
        *_, last = [m for m in blocks[-1].modules() if isinstance(m, nn.Conv2d)]
        is_head = s == len(model.blocks) - 1
        chosen["head.width" if is_head else f"stage{s}.width"] = [last.out_channels]
        if not isinstance(blocks[0], UniversalInvertedResidual):
            continue
        chosen[f"stage{s}.depth"] = [len(blocks)]
        for b, block in enumerate(blocks):
            wide = block.pw_exp.conv
            for name, part in (("start", block.dw_start), ("kernel", block.dw_mid)):
                found = 0 if isinstance(part, nn.Identity) else part.conv.kernel_size[0]
                chosen[f"stage{s}.block{b}.{name}"] = [found]
            chosen[f"stage{s}.block{b}.expand"] = [wide.out_channels // wide.in_channels]
    return space.restrict(chosen).largest()


@pytest.mark.parametrize(("name", "variant", "params", "macs"), PUBLISHED)
def test_the_published_networks_are_members(
    name: str, variant: str, params: int, macs: float
) -> None:
    theirs = timm.create_model(name).eval()
    of_paper = space(variant, 224)
    codes = of_paper.codes([member(of_paper, theirs)])
    assert of_paper.cost(codes, "params")[0] == params
    assert of_paper.cost(codes, "macs")[0] == pytest.approx(macs, abs=0.06e6)
    small = space(variant, 64)
    ours = build_subnet(small, member(small, theirs), seed=None).eval()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=1e-5)


def block_strings(space: SearchSpace, arch: Arch) -> list[list[str]]:
    """timm's `arch_def` of an arch."""
    found: dict[str, list[str]] = {}
    ops = zip(space.macro.slot_names(), space.macro.lower_slots(arch.codes), strict=True)
    for slot, op in ops:
        stage, _, block = slot.partition(".block")
        if op is None or not (block or slot == "head"):
            continue
        text = f"cn_r1_k{op.kernel}_s{op.stride}_c{op.out_channels}"
        if op.kind == "uib":
            ratio = op.mid_channels / op.in_channels
            text = f"uir_r1_a{op.start_kernel}_k{op.kernel}_s{op.stride}_e{ratio}"
            text += f"_c{op.out_channels}"
        if op.kind == "fused":
            ratio = op.mid_channels / op.in_channels
            text = f"er_r1_k{op.kernel}_s{op.stride}_e{ratio}_c{op.out_channels}"
        found.setdefault(stage, []).append(text)
    return list(found.values())


def test_the_bn_behind_the_pooling_follows_its_convolution(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that exports fold it, in timm's form and in plain torch."""
    narrow = space("medium", 32, width_mult=0.25)
    for is_timms in (True, False):
        monkeypatch.setattr(definition, "_timm_can_say", lambda network, found=is_timms: found)
        net = build_subnet(narrow, narrow.smallest())
        assert isinstance(net, Network) != is_timms
        names = [name for name, _ in net.named_children()]
        assert names[names.index("conv_head") + 1] == "norm_head"


@pytest.mark.parametrize("variant", ["small", "medium"])
def test_every_arch_is_timms_from_its_block_strings(variant: str) -> None:
    narrow = space(variant, 32, width_mult=0.25)
    macro = narrow.macro
    for row in narrow.sample(3, rng=rng(0, "archs")):
        arch = narrow.arch(row)
        ours = build_subnet(narrow, arch).eval()
        theirs = MobileNetV3(
            decode_arch_def(block_strings(narrow, arch)),
            stem_size=macro.stem_widths[0],
            fix_stem=True,
            num_features=macro.feature_widths[0],
            head_bias=False,
            head_norm=True,
            round_chs_fn=int,
            norm_layer=partial(BatchNormAct2d, eps=macro.bn_eps),
            act_layer=nn.ReLU,
        ).eval()
        theirs.load_state_dict(ours.state_dict())
        x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=1e-5)


def test_the_first_block_of_a_stage_can_stride_and_the_others_may_have_no_depthwise() -> None:
    values = {choice.name: choice.values for choice in space("small", 224).choices}
    assert values["stage2.block0.kernel"] == (3, 5)
    assert values["stage2.block1.kernel"] == values["stage2.block0.start"] == (0, 3, 5)
    assert values["stage3.depth"] == (2, 3, 4, 5, 6)
    ends = [lower(space("small", 224), getattr(space("small", 224), e)()) for e in ENDS]
    kernels = [{op.kernels for op in network if op.kind == "uib"} for network in ends]
    assert kernels == [{(3,), ()}, {(5, 5)}]


ENDS = ("smallest", "largest")


def test_the_stride_is_that_of_the_last_depthwise_convolution() -> None:
    def strides(start: int, kernel: int) -> list[tuple[str, int, int]]:
        op = OpSpec("uib", 8, 16, 14, 7, 24, kernel, 2, 1, start_kernel=start, act="relu")
        return [(layer.name, layer.stride, layer.out_hw) for layer in layers(op)]

    middle = [("pw_exp", 1, 14), ("dw_mid", 2, 7), ("pw_proj", 1, 7)]
    assert strides(0, 3) == middle and strides(3, 3) == [("dw_start", 1, 14), *middle]
    assert strides(3, 0) == [("dw_start", 2, 7), ("pw_exp", 1, 7), ("pw_proj", 1, 7)]
    op = OpSpec("uib", 8, 16, 14, 7, 24, 0, 2, 1, start_kernel=3, act="relu")
    assert [layer.act for layer in layers(op)] == ["none", "relu", "none"]


def test_predictors_transfer_and_drawings_see_the_start_kernel() -> None:
    def uib(start: int, **more: Any) -> OpSpec:
        return OpSpec("uib", 8, 8, 14, 14, 24, 3, padding=1, start_kernel=start, **more)

    ops = [uib(0), uib(3), uib(5), uib(5, expand_groups=2)]
    assert len({row.tobytes() for row in op_features(ops)}) == len(ops)
    assert (operator_similarity(ops)[0, 1:] < 1).all() and operator_similarity(ops)[
        0, 1
    ] > operator_similarity(ops)[0, 2]
    narrow = space("small", 64, width_mult=0.25)
    drawn = draw_network(lower(narrow, narrow.largest()))
    assert "k5+5" in drawn
    assert str(uib(5, expand_groups=2)) == "uib 8>8 14>14px k5+3s1 mid24 expand_g2"
    assert len({op.key for op in enumerate_ops(narrow)}) == len(enumerate_ops(narrow))


def test_features_are_those_of_timm() -> None:
    theirs = timm.create_model("mobilenetv4_conv_small", features_only=True)
    small = space("small", 64)
    whole = member(small, timm.create_model("mobilenetv4_conv_small"))
    info = features_only(build_subnet(small, whole, seed=None)).feature_info
    assert info.reduction() == theirs.feature_info.reduction()
    assert info.channels() == theirs.feature_info.channels()


UIB = """
name: mobile
resolutions: [32]
stem: {widths: [12]}
stages:
  - {widths: [16], kernels: [0, 3], first_kernels: [3], start_kernels: [0, 3], expands: [2],
     stride: 2, depths: [2]}
  - {widths: [24], ops: [{name: a, kind: fused, expand: 2}]}
head: {width: 64}
"""


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (
            " first_kernels: [3],",
            "",
            "stride is applied to a block without a depthwise(?s:.)*stages.0",
        ),
        (" start_kernels: [0, 3],", "", "without `start_kernels`, found a kernel of 0"),
        ("depths: [2]", "depths: [2], per_stage: true", "at most one of `first_kernels`"),
        (
            "kind: fused",
            "kind: fused, start_kernel: 3",
            "only for the kind uib, found start_kernel 3",
        ),
        ("kind: fused", "kind: fused, kernel: 0", "only for the kind uib, found kernel 0"),
        ("kind: fused", "kind: fused, groups: 2", "`expand_groups` instead of `groups`"),
        ("kind: fused", "kind: fused, expand_groups: 3", "divisible by 3"),
        (
            "kind: fused, expand: 2",
            "kind: conv, expand_groups: 2",
            "no `expand_groups` for the kind conv",
        ),
        ("kind: fused", "kind: uib, groups: 2, expand_groups: 2", "only one of `groups` and"),
        (
            "{width: 64}",
            "{width: 64, feature_bias: true, feature_bn: true}",
            "at most one of `feat",
        ),
        ("ops: [{", "start_kernels: [3], ops: [{", "with `ops`, found `start_kernels`"),
    ],
)
def test_blocks_that_cannot_be_are_refused(before: str, after: str, message: str) -> None:
    mobile_space(UIB)
    assert before in UIB
    with pytest.raises(UserError, match=message):
        mobile_space(UIB.replace(before, after))
