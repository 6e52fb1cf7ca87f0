"""Your own MobileNet space from YAML: stem, stages with choices, head."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from hwnas.core.config import LATER, NUMBER, StrictModel
from hwnas.core.errors import UserError
from hwnas.spaces.chains import BlockOp, MobileMacro, Stage
from hwnas.spaces.choice import ascending
from hwnas.spaces.index import slot_alternatives
from hwnas.spaces.lowering import slot_names
from hwnas.spaces.ops import EXPANDING, Act, BlockKind
from hwnas.spaces.published import Kernel, KernelOrNone
from hwnas.spaces.space import SearchSpace

__all__ = ["BlockOpConfig", "Config", "HeadConfig", "StageConfig", "StemConfig", "build"]

QUICK = {
    "resolutions": (16, 24),
    "stem": {"widths": (8, 12)},
    "stages": (
        {"widths": (8, 16), "depths": (1, 2), "kernels": (3, 5), "expands": (1, 3), "stride": 2},
    ),
    "head": {"expand": 2},
}

Pixels = Annotated[int, Field(ge=8, le=4096)]
Width = Annotated[int, Field(ge=1, le=16384)]
Depth = Annotated[int, Field(ge=1, le=64)]
Expand = Annotated[float, Field(ge=1, le=32)]
SomeWidths = Annotated[tuple[Width, ...], Field(min_length=1, max_length=64)]


class StemConfig(StrictModel):
    """The convolution that reads the image; `widths` in channels."""

    widths: SomeWidths
    """Channels."""
    kernel: Kernel = 3
    """Height and width in px."""
    stride: Annotated[Literal[1, 2], NUMBER] = 2
    """1 keeps the size of the map, 2 halves it."""
    act: Act = "relu6"
    """Activation."""


class BlockOpConfig(StrictModel):
    """One operator that blocks may choose; `skip` leaves the block out.

    `expand` is that of a block that expands (`mbconv`, `uib`, `fused`), `groups` (of both 1x1
    convolutions) of an `mbconv` or a `uib`, `start_kernel` of a `uib`.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_.-]{0,39}$")]
    """What the choice calls it."""
    kind: Literal[BlockKind, "skip"] = "mbconv"
    """Inverted residual, depthwise separable, universal inverted bottleneck (MobileNetV4), one that
    expands with a full convolution, a convolution alone, or left out."""
    kernel: KernelOrNone = 3
    """In px, of the depthwise convolution, or of the full one; 0: a `uib` without a middle one."""
    expand: Expand = 1
    """Expanded channels / input channels."""
    groups: Annotated[int, Field(ge=1, le=64)] = 1
    """Of both 1x1 convolutions, with a channel shuffle behind the first."""
    start_kernel: Annotated[KernelOrNone, LATER] = 0
    """Of the depthwise convolution before the expansion of a `uib`, in px; 0: none."""
    expand_groups: Annotated[int, LATER, Field(ge=1, le=64)] = 1
    """Of the expansion alone, without a shuffle (CPUBone 2603.26425)."""

    @model_validator(mode="after")
    def _has_what_its_kind_has(self) -> BlockOpConfig:
        expands = self.kind in EXPANDING
        if not expands and (self.expand, self.groups) != (1, 1):
            raise ValueError(f"a {self.kind} has no `expand` and no `groups`")
        if not expands and self.expand_groups > 1:
            raise ValueError(f"a {self.kind} has no expansion to split into `expand_groups`")
        if self.kind == "fused" and self.groups > 1:
            raise ValueError("a fused has no `groups`; `expand_groups` split its convolution")
        if self.groups > 1 and self.expand_groups > 1:
            raise ValueError("`groups` split the expansion already: give one of the two")
        if self.kind != "uib" and (self.start_kernel or not self.kernel):
            raise ValueError(f"a {self.kind} has a kernel and no `start_kernel`; a uib may")
        return self


class StageConfig(StrictModel):
    """Blocks of one width, the first with `stride`.

    Every block chooses one of `kernels` and one of `expands` (with `per_stage` all blocks alike),
    or one of `ops`; `first_ops` and `first_kernels` are those of the first block, where they
    differ. With `start_kernels` blocks are universal inverted bottlenecks (MobileNetV4 2404.10518).
    """

    widths: SomeWidths
    """Output channels."""
    depths: Annotated[tuple[Depth, ...], Field(min_length=1, max_length=16)] = (1,)
    """Numbers of blocks."""
    kernels: tuple[KernelOrNone, ...] = ()
    """Of the depthwise convolutions, in px; 0, for none, only beside `start_kernels`."""
    start_kernels: Annotated[tuple[KernelOrNone, ...], LATER] = ()
    """Of depthwise convolutions before the expansion, in px; 0: none."""
    first_kernels: Annotated[tuple[KernelOrNone, ...], LATER] = ()
    """Those of the first block: one with a stride needs a depthwise convolution."""
    expands: tuple[Expand, ...] = ()
    """Depthwise channels / input channels."""
    ops: tuple[BlockOpConfig, ...] = ()
    first_ops: tuple[BlockOpConfig, ...] = ()
    per_stage: bool = False
    """All blocks choose kernel and expansion alike."""
    stride: Annotated[Literal[1, 2], NUMBER] = 1
    """Of the first block."""
    act: Act = "relu6"
    """Activation inside of a block."""
    out_act: Annotated[Act, Field(description="behind the residual add (PGONAS 2206.13329)")] = (
        "none"
    )
    skip_act: Act = "none"
    """Activation of the convolution that stands for a `skip` that changes the shape."""
    se_ratio: Annotated[
        float, Field(ge=0, le=1, description="SE bottleneck as a share of the depthwise width")
    ] = 0.0
    project_shortcut: bool = False
    """Blocks that change the shape keep a shortcut: average pooling and a 1x1 convolution."""

    @model_validator(mode="after")
    def _chooses_one_way(self) -> StageConfig:
        """Kernels and expansions, or whole operators."""
        if self.ops and (self.kernels or self.expands or self.per_stage):
            raise ValueError("give either `ops`, or `kernels` and `expands`, not both")
        if not self.ops and not (self.kernels and self.expands):
            raise ValueError("give `kernels` and `expands`, or `ops`")
        if (self.start_kernels or self.first_kernels) and not self.kernels:
            raise ValueError(
                "`start_kernels` and `first_kernels` go with `kernels`, not with `ops`"
            )
        if self.first_kernels and self.per_stage:
            raise ValueError("`per_stage` blocks are alike: no `first_kernels`")
        if 0 in (*self.kernels, *self.first_kernels) and not self.start_kernels:
            raise ValueError("a kernel of 0 goes with `start_kernels`: only a uib may have none")
        for ops in (self.ops, self.first_ops):
            if len({op.name for op in ops}) != len(ops):
                raise ValueError("operators of one stage need different names")
        if self.first_ops and not self.ops:
            raise ValueError("`first_ops` without `ops`")
        return self


class HeadConfig(StrictModel):
    """1x1 convolution to `width` or `expand` times the last width; pooling; classifier.

    `feature_widths`: a further 1x1 convolution behind the pooling, as in MobileNetV3.
    """

    width: Annotated[int, Field(ge=0, le=16384)] = 0
    """Channels of the 1x1 convolution before the pooling."""
    expand: Annotated[int, Field(ge=0, le=32)] = 0
    """The same as a multiple of the last width."""
    act: Act = "relu6"
    """Activation."""
    feature_widths: Annotated[tuple[Width, ...], Field(max_length=64)] = ()
    """Channels of a further 1x1 convolution behind the pooling, as in MobileNetV3."""
    feature_bias: bool = False
    """Whether that one has a bias."""
    feature_bn: Annotated[bool, LATER] = False
    """Whether it has BN instead, as in MobileNetV4."""

    @model_validator(mode="after")
    def _has_one_width(self) -> HeadConfig:
        if bool(self.width) == bool(self.expand):
            raise ValueError("give either `width` or `expand`")
        if self.feature_bias and self.feature_bn:
            raise ValueError("give either `feature_bias` or `feature_bn`")
        return self


class Config(StrictModel):
    """The whole space; lists of choices may come in any order. `resolutions` in px."""

    name: Literal["mobile"] = "mobile"
    resolutions: Annotated[tuple[Pixels, ...], Field(min_length=1, max_length=64)]
    """In px."""
    stem: StemConfig
    stages: Annotated[tuple[StageConfig, ...], Field(min_length=1, max_length=32)]
    head: HeadConfig


def build(config: Config, *, num_classes: int, in_channels: int = 3) -> SearchSpace:
    """A space of the given stages. Widths are taken as they are; expanded widths are rounded to 8.

    Raises:
        UserError: the stages cannot chain: a stride on a map of one pixel, or groups that do not
            divide the channels; says where.
    """
    space = SearchSpace(
        name="mobile",
        macro=MobileMacro(
            in_channels=in_channels,
            num_classes=num_classes,
            resolutions=ascending(config.resolutions),
            stem_widths=ascending(config.stem.widths),
            stem_kernel=config.stem.kernel,
            stem_stride=config.stem.stride,
            stem_act=config.stem.act,
            stages=tuple(_stage(stage) for stage in config.stages),
            head_width=config.head.width,
            head_expand=config.head.expand,
            head_act=config.head.act,
            feature_widths=ascending(config.head.feature_widths),
            feature_bias=config.head.feature_bias,
            feature_bn=config.head.feature_bn,
        ),
    )
    _check_chain(config, space)
    return space


def _stage(config: StageConfig) -> Stage:
    def ops(given: tuple[BlockOpConfig, ...]) -> tuple[BlockOp, ...]:
        return tuple(BlockOp(**op.model_dump()) for op in given)

    return Stage(
        widths=ascending(config.widths),
        depths=ascending(config.depths),
        stride=config.stride,
        act=config.act,
        kernels=ascending(config.kernels),
        expands=ascending(config.expands),
        ops=ops(config.ops),
        first_ops=ops(config.first_ops),
        per_stage=config.per_stage,
        se_ratio=config.se_ratio,
        out_act=config.out_act,
        skip_act=config.skip_act,
        project_shortcut=config.project_shortcut,
        start_kernels=ascending(config.start_kernels),
        first_kernels=ascending(config.first_kernels),
    )


def _check_chain(config: Config, space: SearchSpace) -> None:
    """Every stride finds a map to halve, at the smallest resolution; groups divide channels."""
    for slot, alternatives in zip(slot_names(space), slot_alternatives(space), strict=True):
        for name, ops in alternatives.items():
            for op in ops:
                if op.stride > 1 and op.in_hw == 1:
                    raise UserError(
                        "invalid stages: a stride is applied to a map of one pixel",
                        expected="larger resolutions, or fewer strides",
                        found=f"1 px of the smallest resolution, {min(config.resolutions)} px",
                        where=f"{_path(config, slot)}.stride",
                    )
                if op.stride > 1 and not op.kernels:
                    raise UserError(
                        "invalid stages: a stride is applied to a block without a"
                        " depthwise convolution",
                        expected="a kernel or a start kernel in the first block of the stage",
                        found=str(op),
                        where=_path(config, slot),
                        fix="give `first_kernels` without 0, or `first_ops`",
                    )
                groups = max(op.groups, op.expand_groups)
                ends = (op.in_channels, op.mid_channels)
                for channels in (*ends, op.out_channels) if op.groups > 1 else ends:
                    if channels % groups:
                        raise UserError(
                            "invalid stages: groups do not divide channels",
                            expected=f"widths, and widths times expansion, divisible by {groups}"
                            " (expanded widths are multiples of 8)",
                            found=f"{channels} channels in {op}",
                            where=_path(config, slot, operator=name),
                        )


def _path(config: Config, slot: str, *, operator: str = "") -> str:
    """Keys in the configuration that describe a slot such as `stem` or `stage1.block0`."""
    stage, is_block, block = slot.partition(".block")
    if not is_block:
        return slot
    number = int(stage.removeprefix("stage"))
    if not operator:
        return f"stages.{number}"
    of_stage = config.stages[number]
    is_first = bool(of_stage.first_ops) and block == "0"
    key, ops = ("first_ops", of_stage.first_ops) if is_first else ("ops", of_stage.ops)
    return f"stages.{number}.{key}.{[op.name for op in ops].index(operator)}.groups"
