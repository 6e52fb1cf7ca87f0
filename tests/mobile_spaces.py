"""Mobile spaces at small resolutions, one of every kind, for tests that run over all of them."""

from __future__ import annotations

from hwnas.core.rng import rng
from hwnas.spaces import REGISTRY
from hwnas.spaces.arch import Arch
from hwnas.spaces.chains import BlockOp, MobileMacro, Stage
from hwnas.spaces.space import SearchSpace

__all__ = ["MIXED", "MOBILE_SPACES", "STRANGE", "some_archs"]

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
        ),
        head_width=0,
        head_expand=2,
        head_act="hard_swish",
        feature_widths=(24, 32),
        feature_bias=True,
    ),
)


def _registered(name: str, px: int) -> SearchSpace:
    module = REGISTRY.load(name)
    space: SearchSpace = module.build(module.Config(resolutions=(px,)), num_classes=10)
    return space


MOBILE_SPACES = {
    "mobilenet_tiny": _registered("mobilenet_tiny", 20),
    "mobilenet_v3": _registered("mobilenet_v3", 40),
    "attentive_nas": _registered("attentive_nas", 42),  # odd maps before strides
    "proxyless": _registered("proxyless", 40),
    "fbnet": _registered("fbnet", 16),
    "nasbench_macro": _registered("nasbench_macro", 16),
    "mixed": MIXED,
    "strange": STRANGE,
}


def some_archs(space: SearchSpace, n: int) -> list[Arch]:
    """The largest, the smallest, and n - 2 random archs."""
    ends = [space.largest(), space.smallest()]
    return [*ends, *map(space.arch, space.sample(rng(0, "archs"), n - 2))]
