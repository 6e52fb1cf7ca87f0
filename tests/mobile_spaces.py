"""Every space at small resolutions, by what it can do, for tests that run over all of them."""

from __future__ import annotations

from hwnas.core.errors import UserError
from hwnas.core.rng import rng
from hwnas.core.yaml_data import parse_yaml
from hwnas.spaces import REGISTRY
from hwnas.spaces.arch import Arch
from hwnas.spaces.chains import BlockOp, MobileMacro, Stage
from hwnas.spaces.load import build_space
from hwnas.spaces.skeleton import Ability
from hwnas.spaces.space import SearchSpace

__all__ = [
    "MIXED",
    "MOBILE_SPACES",
    "NEEDS",
    "REGISTERED",
    "STRANGE",
    "able",
    "headless",
    "some_archs",
]

MIXED = SearchSpace(  # SE, three kernels, expansion 1 beside others, odd maps, gray images
    "mixed",
    MobileMacro(
        in_channels=1,
        num_classes=7,
        resolutions=(18, 21),
        stem_widths=(8, 16),
        stem_kernel=5,
        stem_stride=2,
        stem_act="hard_swish",
        stages=(
            Stage(
                widths=(16, 24),
                depths=(1, 2),
                stride=1,
                act="relu6",
                kernels=(3, 5, 7),
                expands=(1, 3, 6),
                se_ratio=0.25,
            ),
            Stage(
                widths=(24, 40),
                depths=(1, 2),
                stride=2,
                act="swish",
                kernels=(3, 5, 7),
                expands=(3, 6),
                se_ratio=0.25,
            ),
        ),
        head_width=96,
        head_act="relu",
    ),
)
STRANGE = SearchSpace(  # what timm cannot say; a stage, and first blocks, that can be left out
    "strange",
    MobileMacro(
        in_channels=3,
        num_classes=5,
        resolutions=(18, 23),
        stem_widths=(12,),
        stem_kernel=3,
        stem_stride=1,
        stem_act="none",
        stages=(
            Stage(
                widths=(12,),
                depths=(2,),
                stride=1,
                act="relu",
                ops=(BlockOp("skip", "skip"), BlockOp("k3", "mbconv", 3)),
            ),
            Stage(
                widths=(12, 20),
                depths=(1, 2),
                stride=2,
                act="relu",
                kernels=(3, 5),
                expands=(1, 3),
                project_shortcut=True,
            ),
            Stage(
                widths=(24,),
                depths=(1, 2),
                stride=2,
                act="none",
                ops=(
                    BlockOp("skip", "skip"),
                    BlockOp("k3_g2", "mbconv", 3, 2, groups=2),
                    BlockOp("k5_g4", "mbconv", 5, 1, groups=4),
                ),
                se_ratio=0.25,
                out_act="swish",
                skip_act="relu",
            ),
            Stage(
                widths=(24,),
                depths=(1, 2),
                stride=1,
                act="relu",
                ops=(
                    BlockOp("even", "conv", 2),
                    BlockOp("fused", "fused", 3, 2, expand_groups=2),
                    BlockOp("start", "uib", 0, 2, start_kernel=2),
                    BlockOp("both", "uib", 2, 3, start_kernel=3, expand_groups=4),
                ),
            ),
        ),
        head_width=0,
        head_expand=2,
        head_act="hard_swish",
        feature_widths=(24, 32),
        feature_bias=True,
    ),
)


HEADLESS = """
network:
  name: headless
  weights: {px: 32, mean: [0.5], std: [0.5]}
  padding: tf_same
  se_act: swish
  se_gate: sigmoid
  stem: {out: 12, kernel: 5, stride: 2, act: swish}
  stages:
  - - {kind: dsconv, out: 12, act: relu, se: 3, skip: true, out_act: relu6}
  - - {kind: mbconv, out: 20, act: swish, kernel: 5, stride: 2, mid: 36, se: 5}
    - {kind: mbconv, out: 20, act: relu6, mid: 36, skip: true}
  - - {kind: fused, out: 20, act: relu, mid: 40, skip: true}
  - - {kind: uib, out: 24, act: relu, kernel: 0, start: 5, stride: 2, mid: 40}
    - {kind: uib, out: 24, act: relu, kernel: 5, start: 5, mid: 48, skip: true}
    - {kind: conv, out: 16, act: relu6, kernel: 1}
expands: [2]
width_ratios: [0.5, 1]
"""
"""No head; what timm's blocks cannot say: 36 hidden channels, an activation behind a skip."""


def headless(*resolutions: int) -> SearchSpace:
    """Subnets of a network of TensorFlow's padding, for gray images."""
    data = {**parse_yaml(HEADLESS, where="test"), "resolutions": [*resolutions]}
    return build_space("timm", data, num_classes=5, in_channels=1)


PIXELS = {"mobilenet_tiny": 20, "attentive_nas": 42, "fbnet": 16, "nasbench_macro": 16}
"""Where a size of its own tests more than 40 px do: small maps, or odd maps before strides."""


NEEDS = {
    "timm": {"model": "mobilenetv3_small_050", "pad_mode": "tf_same"},
    "mobilenet_v4": {"width_mult": 0.25},
    "mnasnet": {"width_mult": 0.25},
}
"""Settings without a default, and those that make networks small."""


def _registered(name: str) -> SearchSpace:
    settings = {"resolutions": [PIXELS.get(name, 40)], **NEEDS.get(name, {})}
    try:
        return build_space(name, settings, num_classes=10)
    except UserError:  # a space that knows better which images it takes
        return build_space(name, num_classes=10)


REGISTERED = {name: _registered(name) for name in REGISTRY.names if name != "mobile"}
"""Every space of hwnas, at small images; of `mobile`, which has no defaults, the two above."""


def able(ability: Ability) -> dict[str, SearchSpace]:
    """The chains of `REGISTERED` whose skeleton says that it can do this."""
    return {
        name: space
        for name, space in REGISTERED.items()
        if space.macro.is_chain and ability not in space.macro.lacks
    }


MOBILE_SPACES = {**able("static net"), "mixed": MIXED, "strange": STRANGE}


def some_archs(space: SearchSpace, n: int) -> list[Arch]:
    """The largest, the smallest, and n - 2 random archs."""
    ends = [space.largest(), space.smallest()]
    return [*ends, *map(space.arch, space.sample(n - 2, rng=rng(0, "archs")))]
