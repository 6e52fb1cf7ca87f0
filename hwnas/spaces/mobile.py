"""A MobileNet space of your own, from YAML: stem, stages with choices, head."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from hwnas.core.config import StrictModel
from hwnas.core.errors import UserError
from hwnas.spaces.macro import Act, BlockOp, MobileMacro, Stage
from hwnas.spaces.space import SearchSpace

__all__ = ["BlockOpConfig", "Config", "HeadConfig", "StageConfig", "StemConfig", "build"]

Pixels = Annotated[int, Field(ge=8, le=4096)]
Width = Annotated[int, Field(ge=1, le=16384)]
Depth = Annotated[int, Field(ge=1, le=64)]
Kernel = Annotated[Literal[1, 3, 5, 7, 9, 11], Field()]
Expand = Annotated[float, Field(ge=1, le=32)]
SomeWidths = Annotated[tuple[Width, ...], Field(min_length=1, max_length=64)]


class StemConfig(StrictModel):
    """The convolution that reads the image; `widths` in channels."""

    widths: SomeWidths
    kernel: Kernel = 3
    stride: Literal[1, 2] = 2
    act: Act = "relu6"


class BlockOpConfig(StrictModel):
    """One operator that blocks may choose; `skip` leaves the block out."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_.-]{0,39}$")]
    kind: Literal["mbconv", "dsconv", "skip"] = "mbconv"
    kernel: Kernel = 3
    expand: Expand = 1
    groups: Annotated[int, Field(ge=1, le=64)] = 1


class StageConfig(StrictModel):
    """Blocks of one width, the first with `stride`.

    Every block chooses one of `kernels` and one of `expands` (with `per_stage` all blocks alike),
    or one of `ops`; `first_ops` are those of the first block, where they differ.
    """

    widths: SomeWidths
    depths: Annotated[tuple[Depth, ...], Field(min_length=1, max_length=16)] = (1,)
    kernels: tuple[Kernel, ...] = ()
    expands: tuple[Expand, ...] = ()
    ops: tuple[BlockOpConfig, ...] = ()
    first_ops: tuple[BlockOpConfig, ...] = ()
    per_stage: bool = False
    stride: Literal[1, 2] = 1
    act: Act = "relu6"
    out_act: Annotated[Act, Field(description="behind the residual add (PGONAS 2206.13329)")] = (
        "none"
    )
    skip_act: Act = "none"
    se_ratio: Annotated[
        float, Field(ge=0, le=1, description="SE bottleneck as a share of the depthwise width")
    ] = 0.0
    project_shortcut: bool = False

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
    expand: Annotated[int, Field(ge=0, le=32)] = 0
    act: Act = "relu6"
    feature_widths: Annotated[tuple[Width, ...], Field(max_length=64)] = ()
    feature_bias: bool = False

    @model_validator(mode="after")
    def _has_one_width(self) -> HeadConfig:
        if bool(self.width) == bool(self.expand):
            raise ValueError("give either `width` or `expand`")
        return self


class Config(StrictModel):
    """The whole space; lists of choices may come in any order. `resolutions` in px."""

    name: Literal["mobile"] = "mobile"
    resolutions: Annotated[tuple[Pixels, ...], Field(min_length=1, max_length=64)]
    stem: StemConfig
    stages: Annotated[tuple[StageConfig, ...], Field(min_length=1, max_length=32)]
    head: HeadConfig


def build(config: Config, *, num_classes: int, in_channels: int = 3) -> SearchSpace:
    """A space of the given stages. Widths are taken as they are; expanded widths are rounded to 8.

    Raises:
        UserError: the stages cannot chain: a stride on a map of one pixel, or groups that do not
            divide the channels; says which stage.
    """
    stages = tuple(_stage(stage) for stage in config.stages)
    _check_maps(config)
    _check_groups(config.stem.widths, stages)
    return SearchSpace(
        name="mobile",
        macro=MobileMacro(
            in_channels=in_channels,
            num_classes=num_classes,
            resolutions=_ascending(config.resolutions),
            stem_widths=_ascending(config.stem.widths),
            stem_kernel=config.stem.kernel,
            stem_stride=config.stem.stride,
            stem_act=config.stem.act,
            stages=stages,
            head_width=config.head.width,
            head_expand=config.head.expand,
            head_act=config.head.act,
            feature_widths=_ascending(config.head.feature_widths),
            feature_bias=config.head.feature_bias,
        ),
    )


def _stage(config: StageConfig) -> Stage:
    def ops(given: tuple[BlockOpConfig, ...]) -> tuple[BlockOp, ...]:
        return tuple(BlockOp(op.name, op.kind, op.kernel, op.expand, op.groups) for op in given)

    return Stage(
        widths=_ascending(config.widths),
        depths=_ascending(config.depths),
        stride=config.stride,
        act=config.act,
        kernels=_ascending(config.kernels),
        expands=tuple(sorted({int(e) if e == int(e) else e for e in config.expands})),
        ops=ops(config.ops),
        first_ops=ops(config.first_ops),
        per_stage=config.per_stage,
        se_ratio=config.se_ratio,
        out_act=config.out_act,
        skip_act=config.skip_act,
        project_shortcut=config.project_shortcut,
    )


def _ascending(values: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(sorted(set(values)))


def _check_maps(config: Config) -> None:
    """Every stride must find a map to halve."""
    halvings = [
        ("stem", config.stem.stride),
        *((f"stages[{s}]", stage.stride) for s, stage in enumerate(config.stages)),
    ]
    smallest = min(config.resolutions)
    total = 1
    for where, stride in halvings:
        if stride == 2 and smallest <= total:
            raise UserError(
                "the stages of the space cannot chain: a stride meets a map of one pixel",
                expected=f"resolutions above {total} px, or fewer strides",
                found=f"{smallest} px",
                where=where,
            )
        total *= stride


def _check_groups(stem_widths: tuple[int, ...], stages: tuple[Stage, ...]) -> None:
    """Groups divide the channels on both sides of both 1x1 convolutions."""
    before = stem_widths
    for s, stage in enumerate(stages):
        for list_name, ops in (("first_ops", stage.first_ops), ("ops", stage.ops)):
            for o, op in enumerate(ops):
                for width in {*before, *stage.widths}:
                    if width % op.groups or int(width * op.expand) % op.groups:
                        raise UserError(
                            "the stages of the space cannot chain: groups do not divide channels",
                            expected=f"widths divisible by {op.groups}",
                            found=width,
                            where=f"stages[{s}].{list_name}[{o}]",
                        )
        before = stage.widths
