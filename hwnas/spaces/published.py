"""Published networks as data: every block of a network, and how its weights were trained.

`hwnas space from-timm` (`hwnas.nets.from_timm`) writes the files in `networks/`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from hwnas.core.config import NUMBER
from hwnas.core.errors import UserError, did_you_mean
from hwnas.core.records import STRICT, load
from hwnas.core.yaml_data import read_yaml
from hwnas.spaces.ops import EXPANDING, Act, BlockKind, Gate
from hwnas.spaces.padding import PadMode

__all__ = [
    "Block",
    "Conv",
    "Feature",
    "NetworkShape",
    "PublishedNetwork",
    "Weights",
    "check_shape",
    "published_network",
    "published_networks",
]

_FOLDER = Path(__file__).parent / "networks"

Channels = Annotated[int, Field(ge=1, le=16384)]
Kernel = Annotated[Literal[1, 2, 3, 5, 7, 9, 11], NUMBER]
KernelOrNone = Annotated[Literal[0, 1, 2, 3, 5, 7, 9, 11], NUMBER]
Stride = Annotated[Literal[1, 2], NUMBER]
Ratio = Annotated[float, Field(gt=0, le=1)]
Statistic = Annotated[float, Field(ge=-1024, le=1024)]
Text = Annotated[str, Field(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]


@dataclass(frozen=True)
class Conv:
    """A convolution with BN: the stem, or the 1x1 head before the pooling."""

    __pydantic_config__: ClassVar[Any] = STRICT

    out: Channels
    act: Act
    kernel: Kernel = 1
    stride: Stride = 1


@dataclass(frozen=True)
class Feature:
    """The 1x1 convolution after the pooling.

    bias: it has a bias, as in MobileNetV3.
    bn: it has BN, as in MobileNetV4.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    out: Channels
    act: Act
    bias: bool = True
    bn: bool = False


@dataclass(frozen=True)
class Block:
    """A block; `OpSpec` describes the kinds.

    mid: expanded channels; 0 in a `dsconv` (its input has as many) and in a `conv`.
    se: channels of the SE bottleneck; 0 without SE.
    out_act: activation after the residual add.
    kernel, start: in a `uib`, 0 means no such depthwise convolution.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    kind: BlockKind
    out: Channels
    act: Act
    kernel: KernelOrNone = 3
    stride: Stride = 1
    mid: Annotated[int, Field(ge=0, le=65536)] = 0
    se: Annotated[int, Field(ge=0, le=16384)] = 0
    skip: bool = False
    out_act: Act = "none"
    start: KernelOrNone = 0


Stage = Annotated[tuple[Block, ...], Field(min_length=1, max_length=64)]


@dataclass(frozen=True, kw_only=True)
class NetworkShape:
    """Stem, stages of blocks, head and feature layer: the network without input size and classes.

    `se_act` and `se_gate` are the activations within SE; `block` means the activation of the block.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    stem: Conv
    stages: Annotated[tuple[Stage, ...], Field(min_length=1, max_length=32)]
    head: Conv | None = None
    feature: Feature | None = None
    bn_eps: Annotated[float, Field(gt=0, le=1)] = 1e-5
    padding: PadMode = "symmetric"
    se_act: Act | Literal["block"] = "relu"
    se_gate: Gate = "hard_sigmoid"


@dataclass(frozen=True)
class Weights:
    """Preprocessing of the images that the network was trained on, and where to find its weights.

    px: height and width.
    mean, std: per channel, for pixels in [0, 1].
    crop: share of the shorter side that validation crops keep.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    px: Annotated[int, Field(ge=8, le=4096)]
    mean: Annotated[tuple[Statistic, ...], Field(min_length=1, max_length=16)]
    std: Annotated[tuple[Annotated[float, Field(gt=0, le=1024)], ...], Field(min_length=1)]
    crop: Ratio = 0.875
    interpolation: Literal["bilinear", "bicubic", "nearest", "lanczos"] = "bicubic"
    licence: Text = ""
    home: Text = ""


@dataclass(frozen=True, kw_only=True)
class PublishedNetwork(NetworkShape):
    """A network as stored in a file of `networks/`."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,79}$")]
    weights: Weights

    @property
    def shape(self) -> NetworkShape:
        """The network without its name and weights."""
        return NetworkShape(
            **{part.name: getattr(self, part.name) for part in fields(NetworkShape)}
        )


def published_networks() -> tuple[str, ...]:
    """Sorted names of the networks that ship with hwnas."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.yaml")))


@lru_cache(maxsize=64)
def published_network(name: str) -> PublishedNetwork:
    """A network that ships with hwnas, by its name in timm.

    Raises:
        UserError: unknown name; suggests similar ones.
    """
    names = published_networks()
    if name not in names:
        raise UserError(
            f"unknown network {name!r}",
            expected=f"one of {', '.join(names)}",
            where="space.model",
            fix=did_you_mean(
                name,
                names,
                otherwise="`hwnas space from-timm NAME --out FILE` reads other networks",
            ),
        )
    path = _FOLDER / f"{name}.yaml"
    return load(PublishedNetwork, read_yaml(path), where=path.name, versioned=False)


def check_shape(shape: NetworkShape) -> None:
    """Refuses blocks that do not fit together, or that lack a field required by their kind.

    Raises:
        UserError: names the block.
    """
    width = shape.stem.out
    for s, blocks in enumerate(shape.stages):
        for b, block in enumerate(blocks):
            expands = block.kind in EXPANDING
            is_same = block.out == blocks[b - 1].out or b == 0 or block.kind == "conv"
            windows = (block.start, block.kernel)
            faults = {
                "the same `out` in all blocks of a stage": not is_same,
                "stride 1 in all blocks of a stage but the first": b > 0 and block.stride > 1,
                f"`mid` above 0 in every `{block.kind}`": expands and not block.mid,
                f"no `mid` in a `{block.kind}`": not expands and block.mid > 0,
                "`skip` only with stride 1 and equal numbers of input and output channels": (
                    block.skip and (width, 1) != (block.out, block.stride)
                ),
                "`start`, or a `kernel` of 0, only in a `uib`": block.kind != "uib"
                and (block.start > 0 or not block.kernel),
                "`kernel` or `start` above 0 in a block with a stride": block.stride > 1
                and not any(windows),
                "no SE and no `out_act` in a `conv`": block.kind == "conv"
                and (block.se, block.out_act) != (0, "none"),
            }
            for expected, is_fault in faults.items():
                if is_fault:
                    raise UserError(
                        "the space `timm` does not support this network",
                        expected=expected,
                        found=f"{width} input channels, {block}",
                        where=f"network.stages.{s}.{b}",
                    )
            width = block.out
