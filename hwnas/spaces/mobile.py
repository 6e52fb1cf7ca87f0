"""A MobileNet space of your own, from YAML: stem, stages with choices, head."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from hwnas.core.config import NUMBER, StrictModel
from hwnas.core.errors import UserError
from hwnas.spaces.chains import BlockOp, MobileMacro, Stage
from hwnas.spaces.choice import ascending
from hwnas.spaces.index import slot_alternatives
from hwnas.spaces.lowering import slot_names
from hwnas.spaces.ops import Act
from hwnas.spaces.published import Kernel
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

    `expand` and `groups` (of the 1x1 convolutions) are those of an `mbconv`.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_.-]{0,39}$")]
    """What the choice calls it."""
    kind: Literal["mbconv", "dsconv", "skip"] = "mbconv"
    """Inverted residual, depthwise separable, or left out."""
    kernel: Kernel = 3
    """Of the depthwise convolution, in px."""
    expand: Expand = 1
    """Depthwise channels / input channels of an `mbconv`."""
    groups: Annotated[int, Field(ge=1, le=64)] = 1
    """Of the 1x1 convolutions of an `mbconv`."""

    @model_validator(mode="after")
    def _has_what_its_kind_has(self) -> BlockOpConfig:
        if self.kind != "mbconv" and (self.expand, self.groups) != (1, 1):
            raise ValueError(f"a {self.kind} has no `expand` and no `groups`")
        return self


class StageConfig(StrictModel):
    """Blocks of one width, the first with `stride`.

    Every block chooses one of `kernels` and one of `expands` (with `per_stage` all blocks alike),
    or one of `ops`; `first_ops` are those of the first block, where they differ.
    """

    widths: SomeWidths
    """Output channels."""
    depths: Annotated[tuple[Depth, ...], Field(min_length=1, max_length=16)] = (1,)
    """Numbers of blocks."""
    kernels: tuple[Kernel, ...] = ()
    """Of the depthwise convolutions, in px."""
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

    @model_validator(mode="after")
    def _has_one_width(self) -> HeadConfig:
        if bool(self.width) == bool(self.expand):
            raise ValueError("give either `width` or `expand`")
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
        ),
    )
    _check_chain(config, space)
    return space


def _stage(config: StageConfig) -> Stage:
    def ops(given: tuple[BlockOpConfig, ...]) -> tuple[BlockOp, ...]:
        return tuple(BlockOp(op.name, op.kind, op.kernel, op.expand, op.groups) for op in given)

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
    )


def _check_chain(config: Config, space: SearchSpace) -> None:
    """Every stride finds a map to halve, at the smallest resolution; groups divide channels."""
    for slot, alternatives in zip(slot_names(space), slot_alternatives(space), strict=True):
        for name, ops in alternatives.items():
            for op in ops:
                if op.stride > 1 and op.in_hw == 1:
                    raise UserError(
                        "the stages of the space cannot chain: a stride meets a map of one pixel",
                        expected="larger resolutions, or fewer strides",
                        found=f"1 px of the smallest resolution, {min(config.resolutions)} px",
                        where=f"{_path(config, slot)}.stride",
                    )
                for channels in (op.in_channels, op.mid_channels, op.out_channels):
                    if channels % op.groups:
                        raise UserError(
                            "the stages of the space cannot chain: groups do not divide channels",
                            expected=f"widths, and widths times expansion, divisible by {op.groups}"
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
