"""Subnets of a published network with weights. The largest arch is that network."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import Field, field_serializer, model_validator

from hwnas.core.config import StrictModel
from hwnas.core.errors import Invalid, UserError
from hwnas.core.records import sparse
from hwnas.spaces.choice import ascending
from hwnas.spaces.index import slot_alternatives
from hwnas.spaces.lowering import lower, slot_names
from hwnas.spaces.mobile_sections import Depth, Expand, Pixels
from hwnas.spaces.network import Network
from hwnas.spaces.padding import PadMode
from hwnas.spaces.published import (
    Kernel,
    PublishedNetwork,
    Ratio,
    check_shape,
    published_network,
)
from hwnas.spaces.space import SearchSpace
from hwnas.spaces.within import Within

__all__ = ["Config", "build", "network_of", "published_at"]

QUICK = {
    "model": "mobilenetv3_small_050",
    "depths": (1, 2),
    "expands": (2,),
    "kernels": (3,),
    "width_ratios": (0.5, 1),
    "resolutions": (24, 33),
    "pad_mode": "tf_same",
}

_STEP_PX = 32


class Config(StrictModel):
    """A network, by name (`model`) or in full (`network`), and smaller values to choose from.

    Every list is reduced to values below those of the network; the network's own values are always
    included.
    """

    name: Literal["timm"] = "timm"
    model: Annotated[str, Field(max_length=80)] | None = None
    """Network whose subnets are the space, by its name in timm; `hwnas space models` lists those
    that ship with hwnas. null: `network` defines it.
    """
    network: PublishedNetwork | None = None
    """Any other network whose subnets are the space, as `hwnas space from-timm NAME --out FILE`
    writes it.
    """
    depths: Annotated[tuple[Depth, ...], Field(max_length=16)] = (1, 2, 3)
    """Numbers of blocks of a stage to choose from."""
    expands: Annotated[tuple[Expand, ...], Field(max_length=16)] = (2, 3, 4)
    """Ratios of depthwise channels to input channels of a block, to choose from."""
    kernels: Annotated[tuple[Kernel, ...], Field(max_length=8)] = (3, 5)
    """Sizes of the depthwise kernels to choose from, in px. A smaller kernel starts as the centre
    of the network's kernel.
    """
    width_ratios: Annotated[tuple[Ratio, ...], Field(max_length=16)] = (0.75, 1.0)
    """Channel counts to choose from, relative to those of the network; 1 is always included."""
    resolutions: Annotated[tuple[Pixels, ...], Field(max_length=64)] = ()
    """Input resolutions to choose from, in px; empty: the network's own resolution, and lower ones
    in steps of 32 down to half of it.
    """
    pad_mode: PadMode | None = None
    """Padding of maps: symmetric or as in TensorFlow; null: as in the network."""

    @field_serializer("network")
    def _without_defaults(self, network: PublishedNetwork | None) -> dict[str, Any] | None:
        """The block without default values, so that a field added later does not change hashes."""
        return None if network is None else sparse(network)

    @model_validator(mode="after")
    def _has_one_network(self) -> Config:
        if (self.model is None) == (self.network is None):
            given = "neither" if self.model is None else "both"
            raise Invalid("one of `model` (see `hwnas space models`) and `network`", given)
        return self


def network_of(config: Config) -> PublishedNetwork:
    """The network that equals the largest arch.

    Raises:
        UserError: unknown name; suggests similar ones.
    """
    if config.network is not None:
        return config.network
    assert config.model is not None
    return published_network(config.model)


def build(config: Config, *, num_classes: int, in_channels: int = 3) -> SearchSpace:
    """Builds a space of elastic depth, expansion, kernel, width and resolution within a network.

    The largest arch has exactly the operators of the network (widths, SE, strides, padding,
    residual connections), so the published weights fit.

    Raises:
        UserError: unknown network, blocks that do not fit together, or a resolution that the
            network does not support; names the place.
    """
    space = _space(config, num_classes, in_channels)
    _check_maps(space)
    return space


def published_at(name: str, px: int, *, num_classes: int, in_channels: int = 3) -> Network:
    """The operators of a network that ships with hwnas, at a resolution of px x px.

    Unlike `build`, it does not refuse small resolutions.

    Raises:
        UserError: unknown name; suggests similar names.
    """
    space = _space(Config(model=name, resolutions=(px,)), num_classes, in_channels)
    return lower(space, space.largest())


def _space(config: Config, num_classes: int, in_channels: int) -> SearchSpace:
    network = network_of(config)
    shape = network.shape
    if config.pad_mode is not None:
        shape = replace(shape, padding=config.pad_mode)
    check_shape(shape)
    return SearchSpace(
        name="timm",
        macro=Within(
            in_channels=in_channels,
            num_classes=num_classes,
            resolutions=_resolutions(config, network),
            network=shape,
            depths=ascending(config.depths),
            expands=ascending(config.expands),
            kernels=ascending(config.kernels),
            width_ratios=tuple(sorted({float(ratio) for ratio in config.width_ratios})),
            bn_eps=shape.bn_eps,
        ),
    )


def _resolutions(config: Config, network: PublishedNetwork) -> tuple[int, ...]:
    own = network.weights.px
    default = range(own, max(own // 2, 8) - 1, -_STEP_PX)
    return tuple(sorted(set(config.resolutions or default)))


def _check_maps(space: SearchSpace) -> None:
    """Checks that every stride reads a map that it can halve, at the smallest resolution."""
    for slot, alternatives in zip(slot_names(space), slot_alternatives(space), strict=True):
        for op in (op for ops in alternatives.values() for op in ops):
            if op.stride > 1 and op.in_hw == 1:
                raise UserError(
                    "the resolution is too small: a stride is applied to a map of one pixel",
                    expected="larger resolutions",
                    found=f"a map of 1 px in {slot} at {min(space.macro.resolutions)} px",
                    where="space.resolutions",
                )
