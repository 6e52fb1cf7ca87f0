"""A custom MobileNet space defined in YAML: stem, stages with choices, head."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hwnas.core.config import StrictModel
from hwnas.core.errors import UserError
from hwnas.spaces.chains import BlockOp, MobileMacro, Stage
from hwnas.spaces.choice import ascending
from hwnas.spaces.index import slot_alternatives
from hwnas.spaces.lowering import slot_names
from hwnas.spaces.mobile_sections import BlockOpConfig, HeadConfig, Pixels, StageConfig, StemConfig
from hwnas.spaces.space import SearchSpace

__all__ = ["Config", "build"]

QUICK = {
    "resolutions": (16, 24),
    "stem": {"widths": (8, 12)},
    "stages": (
        {"widths": (8, 16), "depths": (1, 2), "kernels": (3, 5), "expands": (1, 3), "stride": 2},
    ),
    "head": {"expand": 2},
}


class Config(StrictModel):
    """The whole space. Lists of choices may be in any order; `resolutions` in px."""

    name: Literal["mobile"] = "mobile"
    resolutions: Annotated[tuple[Pixels, ...], Field(min_length=1, max_length=64)]
    """Input resolutions to choose from, in px."""
    stem: StemConfig
    stages: Annotated[tuple[StageConfig, ...], Field(min_length=1, max_length=32)]
    head: HeadConfig


def build(config: Config, *, num_classes: int, in_channels: int = 3) -> SearchSpace:
    """A space with the given stages. Widths are used as given; expanded widths are rounded to 8.

    Raises:
        UserError: the stages do not fit together, for example a stride on a map of one pixel, or
            groups that do not divide the channels; names the place.
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
    """Checks strides at the smallest resolution, and that groups divide the channels."""
    for slot, alternatives in zip(slot_names(space), slot_alternatives(space), strict=True):
        for name, ops in alternatives.items():
            for op in ops:
                if op.stride > 1 and op.in_hw == 1:
                    raise UserError(
                        "invalid stages: a stride is applied to a map of one pixel",
                        expected="larger resolutions, or fewer strides",
                        found=f"a map of 1 px at the resolution {min(config.resolutions)} px",
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
    """Configuration keys that describe a slot such as `stem` or `stage1.block0`."""
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
