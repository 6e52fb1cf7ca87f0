"""Sections of a custom MobileNet space: stem, stages, head."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Literal

from pydantic import Field, model_validator

from hwnas.core.config import LATER, NUMBER, StrictModel
from hwnas.core.errors import Invalid
from hwnas.spaces.ops import EXPANDING, Act, BlockKind
from hwnas.spaces.published import Kernel, KernelOrNone

__all__ = ["BlockOpConfig", "HeadConfig", "StageConfig", "StemConfig"]

Pixels = Annotated[int, Field(ge=8, le=4096)]
Width = Annotated[int, Field(ge=1, le=16384)]
Depth = Annotated[int, Field(ge=1, le=64)]
Expand = Annotated[float, Field(ge=1, le=32)]
SomeWidths = Annotated[tuple[Width, ...], Field(min_length=1, max_length=64)]


class StemConfig(StrictModel):
    """The first convolution, which reads the image."""

    widths: SomeWidths
    """Channel counts of the stem to choose from."""
    kernel: Kernel = 3
    """Kernel size of the stem in px."""
    stride: Annotated[Literal[1, 2], NUMBER] = 2
    """Stride of the stem: 1 keeps the size of the map, 2 halves it."""
    act: Act = "relu6"
    """Activation after the convolution of the stem."""


class BlockOpConfig(StrictModel):
    """One operator that a block can choose. `skip` omits the block.

    `expand` applies to `mbconv`, `uib` and `fused`, `groups` to `mbconv` and `uib`, `start_kernel`
    to `uib`.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_.-]{0,39}$")]
    """Name of this operator, as a value of the choice."""
    kind: Literal[BlockKind, "skip"] = "mbconv"
    """Kind of the block. `mbconv`: inverted residual; `dsconv`: depthwise separable; `uib`:
    universal inverted bottleneck (MobileNetV4); `fused`: expansion by a full convolution; `conv`:
    one convolution; `skip`: no block.
    """
    kernel: KernelOrNone = 3
    """Kernel size in px; 0: a `uib` without its middle depthwise convolution."""
    expand: Expand = 1
    """Expanded channels / input channels; for the kinds `mbconv`, `uib` and `fused`."""
    groups: Annotated[int, Field(ge=1, le=64)] = 1
    """Groups of both 1x1 convolutions of `mbconv` and `uib`; channels are shuffled after the first
    one.
    """
    start_kernel: Annotated[KernelOrNone, LATER] = 0
    """Kernel size in px of the depthwise convolution before the expansion of a `uib`; 0: none."""
    expand_groups: Annotated[int, LATER, Field(ge=1, le=64)] = 1
    """Groups of the expansion of `mbconv`, `uib` and `fused` only, without a channel shuffle
    (CPUBone 2603.26425).
    """

    @model_validator(mode="after")
    def _has_what_its_kind_has(self) -> BlockOpConfig:
        expands = self.kind in EXPANDING
        if not expands and (self.expand, self.groups) != (1, 1):
            given = f"expand {self.expand:g} and groups {self.groups}"
            raise Invalid(f"neither `expand` nor `groups` for the kind {self.kind}", given)
        if not expands and self.expand_groups > 1:
            raise Invalid(f"no `expand_groups` for the kind {self.kind}", self.expand_groups)
        if self.kind == "fused" and self.groups > 1:
            raise Invalid("`expand_groups` instead of `groups` for the kind fused", "`groups`")
        if self.groups > 1 and self.expand_groups > 1:
            both = "only one of `groups` and `expand_groups`, because both split the expansion"
            raise Invalid(both, "both")
        if self.kind != "uib" and self.start_kernel:
            given = f"start_kernel {self.start_kernel} for the kind {self.kind}"
            raise Invalid("`start_kernel` only for the kind uib", given)
        if self.kind != "uib" and not self.kernel:
            given = f"kernel 0 for the kind {self.kind}"
            raise Invalid("a kernel of 0 only for the kind uib", given)
        return self


class StageConfig(StrictModel):
    """Blocks of one width. The first block has stride `stride`.

    Every block chooses one of `kernels` and one of `expands`, or one of `ops`. With `per_stage`,
    all blocks share the choice. `first_ops` and `first_kernels` replace these lists for the first
    block. With `start_kernels`, blocks are universal inverted bottlenecks (MobileNetV4 2404.10518).
    """

    widths: SomeWidths
    """Output channels of the stage to choose from."""
    depths: Annotated[tuple[Depth, ...], Field(min_length=1, max_length=16)] = (1,)
    """Numbers of blocks of the stage to choose from."""
    kernels: tuple[KernelOrNone, ...] = ()
    """Kernel sizes of the depthwise convolutions to choose from, in px; 0 (none) requires
    `start_kernels`.
    """
    start_kernels: Annotated[tuple[KernelOrNone, ...], LATER] = ()
    """Kernel sizes of the depthwise convolutions before the expansion to choose from, in px; 0:
    none. With them, blocks are universal inverted bottlenecks (MobileNetV4 2404.10518).
    """
    first_kernels: Annotated[tuple[KernelOrNone, ...], LATER] = ()
    """Kernel sizes of the first block to choose from, in px; empty: those of `kernels`. A block
    with a stride needs a depthwise convolution.
    """
    expands: tuple[Expand, ...] = ()
    """Ratios of depthwise channels to input channels, to choose from."""
    ops: tuple[BlockOpConfig, ...] = ()
    first_ops: tuple[BlockOpConfig, ...] = ()
    per_stage: bool = False
    """Whether all blocks of the stage share one choice of kernel and expansion."""
    stride: Annotated[Literal[1, 2], NUMBER] = 1
    """Stride of the first block of the stage: 1 keeps the size of the map, 2 halves it."""
    act: Act = "relu6"
    """Activation inside the blocks, after their expansion and depthwise convolution."""
    out_act: Annotated[
        Act, Field(description="Activation after the residual add of a block (PGONAS 2206.13329).")
    ] = "none"
    skip_act: Act = "none"
    """Activation of the convolution that replaces a `skip` where the shape changes."""
    se_ratio: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="Squeeze-and-excitation (SE): bottleneck channels / depthwise channels; 0:"
            " no SE.",
        ),
    ] = 0.0
    project_shortcut: bool = False
    """Whether blocks that change the shape keep a residual connection (average pooling and 1x1
    convolution).
    """

    @model_validator(mode="after")
    def _chooses_one_way(self) -> StageConfig:
        """Requires either kernels and expansions, or whole operators."""
        if self.ops and (self.kernels or self.expands or self.per_stage):
            raise Invalid("`ops`, or `kernels` and `expands`", "both")
        if not self.ops and not (self.kernels and self.expands):
            given = "only `kernels`" if self.kernels else "only `expands`"
            given = given if self.kernels or self.expands else "neither"
            raise Invalid("`ops`, or `kernels` and `expands`", given)
        if (self.start_kernels or self.first_kernels) and not self.kernels:
            given = "`start_kernels`" if self.start_kernels else "`first_kernels`"
            raise Invalid("neither `start_kernels` nor `first_kernels` with `ops`", given)
        if self.first_kernels and self.per_stage:
            raise Invalid("at most one of `first_kernels` and `per_stage`", "both")
        if 0 in (*self.kernels, *self.first_kernels) and not self.start_kernels:
            raise Invalid("kernels above 0 in a stage without `start_kernels`", "a kernel of 0")
        for ops in (self.ops, self.first_ops):
            if twice := [name for name, n in Counter(op.name for op in ops).items() if n > 1]:
                raise Invalid("operators with different names", f"{', '.join(sorted(twice))} twice")
        if self.first_ops and not self.ops:
            raise Invalid("`ops`, because `first_ops` is given", "no `ops`")
        return self


class HeadConfig(StrictModel):
    """1x1 convolution, pooling and classifier.

    The convolution has `width` channels, or `expand` times the last width. `feature_widths` adds a
    second 1x1 convolution after the pooling, as in MobileNetV3.
    """

    width: Annotated[int, Field(ge=0, le=16384)] = 0
    """Channels of the 1x1 convolution before the pooling; 0: `expand` determines them."""
    expand: Annotated[int, Field(ge=0, le=32)] = 0
    """Channels of the 1x1 convolution before the pooling / channels of the last stage; 0: `width`
    determines them.
    """
    act: Act = "relu6"
    """Activation after the convolutions of the head."""
    feature_widths: Annotated[tuple[Width, ...], Field(max_length=64)] = ()
    """Channels of a second 1x1 convolution, after the pooling, to choose from (as in MobileNetV3);
    empty: there is none.
    """
    feature_bias: bool = False
    """Whether the convolution after the pooling has a bias."""
    feature_bn: Annotated[bool, LATER] = False
    """Whether the convolution after the pooling has BN instead of a bias, as in MobileNetV4."""

    @model_validator(mode="after")
    def _has_one_width(self) -> HeadConfig:
        if bool(self.width) == bool(self.expand):
            given = "both" if self.width else "neither"
            raise Invalid("one of `width` and `expand`", given)
        if self.feature_bias and self.feature_bn:
            raise Invalid("at most one of `feature_bias` and `feature_bn`", "both")
        return self
