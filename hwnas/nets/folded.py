"""Reads 8-bit networks whose BN is folded into the convolutions: `NAME.npz`, `NAME.json`.

The layout is that of quantised TensorFlow Lite files, unpacked. The JSON file lists the layers in
execution order. The archive has `LAYER.weight` (uint8; convolutions [out, kh, kw, in], depthwise
[1, kh, kw, channels]), `LAYER.w_scale`, `LAYER.w_zero` and `LAYER.bias` (int32). If BN statistics
were computed before, it also has `LAYER.mean` and `LAYER.var`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hwnas.core.arrays import read_npz
from hwnas.core.errors import UserError
from hwnas.core.store import read_json
from hwnas.spaces.published import Block, Conv, PublishedNetwork, Weights

__all__ = [
    "Folded",
    "FoldedLayer",
    "is_folded",
    "published_of_folded",
    "read_folded",
    "unreadable",
]

_KINDS = ("conv", "depthwise")
_WITHOUT_WEIGHTS = ("add", "global_avg")
MAX_LAYERS = 4096
_BACKGROUND = 1001  # classes of TensorFlow's ImageNet; the first is "background"
_LAYER = re.compile(r"\d+\.(weight|w_scale|w_zero|bias|mean|var)")


@dataclass(frozen=True)
class FoldedLayer:
    """A convolution: weight [out, in / groups, k, k] and bias [out], both float32.

    is_skipped: a residual connection is added to its output.
    mean, var: statistics [out] of its output before the bias is added, over training images; None
        if unknown.
    """

    weight: Tensor
    bias: Tensor
    is_depthwise: bool = False
    stride: int = 1
    act: Literal["relu6", "none"] = "none"
    is_skipped: bool = False
    mean: Tensor | None = None
    var: Tensor | None = None


@dataclass(frozen=True)
class Folded:
    """The layers of an 8-bit network in execution order. The last layer is the classifier.

    px: height and width of the input images.
    mean, std: normalisation of their pixels in [0, 1], per channel.
    """

    name: str
    px: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    layers: tuple[FoldedLayer, ...]

    @property
    def has_statistics(self) -> bool:
        """Whether all layers have BN statistics. If so, `unfold` needs no images."""
        return all(layer.mean is not None for layer in self.layers[:-1])


def is_folded(names: Iterable[str]) -> bool:
    """Whether the arrays of an archive have the names of an 8-bit network."""
    names = list(names)
    return bool(names) and all(_LAYER.fullmatch(name) for name in names)


def published_of_folded(network: Folded) -> PublishedNetwork:
    """Describes an 8-bit network as data for the space `timm`.

    The network must consist of the blocks of MobileNetV1 and V2.

    Raises:
        UserError: the network is not a stem, blocks, a head and a classifier, in this order.
    """
    stem, *rest, _ = network.layers
    stages: list[list[Block]] = []
    width, at = len(stem.bias), 0
    while at < len(rest) and any(layer.is_depthwise for layer in rest[at : at + 2]):
        parts = rest[at : at + 2] if rest[at].is_depthwise else rest[at : at + 3]
        if len(parts) < 2:
            break
        *wide, deep, last = parts
        if not deep.is_depthwise or last.is_depthwise or (wide and wide[0].act != deep.act):
            break
        block = Block(
            kind="mbconv" if wide else "dsconv",
            out=len(last.bias),
            act=deep.act,
            kernel=deep.weight.shape[-1],  # type: ignore[arg-type]
            stride=deep.stride,  # type: ignore[arg-type]
            mid=len(deep.bias) if wide else 0,
            skip=last.is_skipped,
            out_act=last.act,
        )
        if block.stride > 1 or block.out != width or not stages:
            stages.append([])
        stages[-1].append(block)
        width, at = block.out, at + len(parts)
    head = rest[at] if at < len(rest) else None
    if not stages or len(rest) > at + 1 or stem.is_depthwise:
        raise UserError(
            "no space supports this 8-bit network",
            expected="in this order: a convolution, inverted residuals or depthwise separable"
            " blocks, a head",
            found=f"another kind of layer, or another order, from layer {at + 1} on",
            where=network.name,
        )
    return PublishedNetwork(
        name=re.sub(r"[^A-Za-z0-9_.-]", "_", network.name)[:80],
        weights=Weights(px=network.px, mean=network.mean, std=network.std),
        stem=_conv(stem),
        stages=tuple(map(tuple, stages)),
        head=_conv(head) if head is not None else None,
        bn_eps=1e-3,
        padding="tf_same",
    )


def _conv(layer: FoldedLayer) -> Conv:
    return Conv(len(layer.bias), layer.act, layer.weight.shape[-1], layer.stride)  # type: ignore[arg-type]


def unreadable(path: Path, error: Exception) -> UserError:
    """The `UserError` to raise if reading the weights in `path` failed with `error`."""
    return UserError(
        "cannot read the weights",
        found=str(error),
        where=path,
        fix="download or copy the file again",
    )


def read_folded(path: Path) -> Folded:
    """Reads the network in the .npz file `path` and in the .json file of the same name next to it.

    The class "background", the first of the 1,001 classes of TensorFlow's ImageNet, is removed.

    Raises:
        UserError: one of the files is missing, damaged or has another layout; names the layer.
    """
    described = path.with_suffix(".json")
    if not described.exists():
        raise UserError(
            "the file that describes the layers of the 8-bit weights is missing",
            expected=described.name,
            found="no such file",
            where=path.parent,
            fix=f"put {described.name} beside {path.name}",
        )
    data = read_json(described)
    try:
        arrays = read_npz(path)
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error
    try:
        px, scale, zero = data["input"]["hwc"][0], data["input"]["scale"], data["input"]["zero"]
        channels = int(data["input"]["hwc"][2])
        layers = [dict(layer) for layer in data["layers"]]
        found = Folded(
            name=str(data["name"]),
            px=int(px),
            mean=(float(zero) / 255,) * channels,
            std=(1 / (255 * float(scale)),) * channels,
            layers=tuple(_layers(layers, arrays)),
        )
        classes = int(data["classes"])
        if not 0 < len(found.layers) <= MAX_LAYERS:
            raise ValueError(
                f"{len(found.layers):,} layers with weights, instead of 1 to {MAX_LAYERS:,}"
            )
        if (n := len(found.layers[-1].bias)) != classes:
            raise ValueError(f"{n} outputs of the last layer, instead of {classes} classes")
    except (KeyError, IndexError, TypeError, ValueError, OverflowError, ZeroDivisionError) as error:
        raise UserError(
            "the files of an 8-bit network do not have the expected layout",
            expected="in the .json file, layers whose `op` is conv, depthwise, add or global_avg;"
            " in the .npz file, for every conv or depthwise layer number N: N.weight (uint8),"
            " N.w_scale, N.w_zero, N.bias (int32)",
            found=_found(error),
            where=f"{described}, {path.name}",
            fix="docs/pretrained.md describes the layout of networks with 8 bits",
        ) from error
    return found if classes != _BACKGROUND else _without_background(found)


def _found(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"no key or array {error}"
    return str(error) if isinstance(error, ValueError) else repr(error)


def _layers(
    layers: Sequence[Mapping[str, Any]], arrays: Mapping[str, NDArray[Any]]
) -> Iterator[FoldedLayer]:
    for layer, behind in zip_longest(layers, layers[1:], fillvalue={"op": "nothing"}):
        kind = layer["op"]
        if kind not in (*_KINDS, *_WITHOUT_WEIGHTS):
            raise ValueError(f"layer {layer.get('layer')} is of kind {kind!r}")
        if kind in _KINDS:
            yield replace(_layer(layer, arrays), is_skipped=behind["op"] == "add")


def _layer(layer: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> FoldedLayer:
    """One layer with float weights.

    Raises:
        KeyError, ValueError: an array is missing, or has another type or shape.
    """
    number, is_depthwise = layer["layer"], layer["op"] == "depthwise"
    codes = _array(arrays, f"{number}.weight", np.uint8, 4)
    out = codes.shape[3 if is_depthwise else 0]
    scale, zero = (
        _array(arrays, f"{number}.{name}", kind, 1).astype(np.float64)
        for name, kind in (("w_scale", np.floating), ("w_zero", np.integer))
    )
    if is_depthwise and codes.shape[0] != 1:
        shape = list(codes.shape)
        raise ValueError(f"{number}.weight of shape {shape} instead of [1, kh, kw, channels]")
    weight = codes.transpose(3, 0, 1, 2) if is_depthwise else codes.transpose(0, 3, 1, 2)
    per_channel = (-1, 1, 1, 1)
    values = (weight - zero.reshape(per_channel)) * scale.reshape(per_channel)
    bias = _array(arrays, f"{number}.bias", np.int32, 1) * float(layer["in_scale"]) * scale
    moments = [_moment(arrays, f"{number}.{kind}", out) for kind in ("mean", "var")]
    if bias.shape != (out,) or (moments[0] is None) != (moments[1] is None):
        raise ValueError(f"layer {number}: bias or statistics do not fit {out} channels")
    if not np.isfinite(values).all() or not np.isfinite(bias).all():
        raise ValueError(f"layer {number} has values that are not finite")
    stride, act = int(layer["stride"]), layer["activation"]
    if stride not in (1, 2) or act not in ("relu6", "none"):
        raise ValueError(f"layer {number} has stride {stride}, activation {act!r}")
    mean, var = moments
    return FoldedLayer(
        _tensor(values),
        _tensor(bias),
        is_depthwise=is_depthwise,
        stride=stride,
        act=act,
        mean=mean,
        var=var,
    )


def _moment(arrays: Mapping[str, NDArray[Any]], name: str, size: int) -> Tensor | None:
    if name not in arrays:
        return None
    values = _array(arrays, name, np.floating, 1)
    if values.shape != (size,) or not np.isfinite(values).all():
        raise ValueError(f"{name} of shape {list(values.shape)} instead of {size} finite numbers")
    if name.endswith(".var") and (values < 0).any():
        raise ValueError(f"{name} has negative values")
    return _tensor(values)


def _array(
    arrays: Mapping[str, NDArray[Any]], name: str, kind: type[Any], ndim: int
) -> NDArray[Any]:
    found = arrays[name]
    if not np.issubdtype(found.dtype, kind) or found.ndim != ndim or not found.size:
        raise ValueError(f"{name} is {found.dtype} {list(found.shape)}")
    return found


def _tensor(values: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))


def _without_background(network: Folded) -> Folded:
    *others, last = network.layers
    kept = replace(last, weight=last.weight[1:].clone(), bias=last.bias[1:].clone())
    return replace(network, layers=(*others, kept))
