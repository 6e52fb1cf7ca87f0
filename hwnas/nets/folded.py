"""Reads networks of 8-bit codes whose BN is folded into the convolutions: `NAME.npz`, `NAME.json`.

The layout is that of TensorFlow Lite's quantised files, unpacked: the JSON file lists the layers in
execution order, the archive has `LAYER.weight` (uint8; convolutions [out, kh, kw, in], depthwise
[1, kh, kw, channels]), `LAYER.w_scale`, `LAYER.w_zero` and `LAYER.bias` (int32). Where statistics
were computed already it also has `LAYER.mean` and `LAYER.var`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hwnas.core.arrays import read_npz
from hwnas.core.errors import UserError
from hwnas.core.store import read_json

__all__ = ["Folded", "FoldedLayer", "is_folded", "read_folded"]

_KINDS = ("conv", "depthwise")
_WITHOUT_WEIGHTS = ("add", "global_avg")
_BACKGROUND = 1001  # classes of TensorFlow's ImageNet, whose first is "none of them"
_LAYER = re.compile(r"\d+\.(weight|w_scale|w_zero|bias|mean|var)")


@dataclass(frozen=True)
class FoldedLayer:
    """A convolution: weight [out, in / groups, k, k], bias [out]; both of float32.

    mean, var: of its output without the bias, per channel, over training images; None: unknown.
    """

    weight: Tensor
    bias: Tensor
    mean: Tensor | None = None
    var: Tensor | None = None


@dataclass(frozen=True)
class Folded:
    """A network as its layers in execution order, the classifier last.

    px: height and width of its images; mean, std: what their [0, 1] pixels are normalised with.
    """

    name: str
    px: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    layers: tuple[FoldedLayer, ...]

    @property
    def has_statistics(self) -> bool:
        """Whether all is known that BN needs, so that no images are asked for."""
        return all(layer.mean is not None for layer in self.layers[:-1])


def is_folded(names: Iterable[str]) -> bool:
    """Whether the arrays of an archive are named as those of such a network."""
    names = list(names)
    return bool(names) and all(_LAYER.fullmatch(name) for name in names)


def read_folded(path: Path) -> Folded:
    """The network in `path`, a .npz file, and in the .json file of the same name beside it.

    The class "background" of TensorFlow's ImageNet, the first of 1,001, is left out.

    Raises:
        UserError: one of the files is missing, damaged or of another layout; names the layer.
    """
    described = path.with_suffix(".json")
    if not described.exists():
        raise UserError(
            "8-bit weights without the description of their layers",
            expected=described.name,
            found="no such file",
            where=path.parent,
            fix=f"put {described.name} beside {path.name}",
        )
    data = read_json(described)
    try:
        arrays = read_npz(path)
    except (OSError, ValueError) as error:
        raise UserError("cannot read the weights", found=str(error), where=path) from error
    try:
        px, scale, zero = data["input"]["hwc"][0], data["input"]["scale"], data["input"]["zero"]
        channels = int(data["input"]["hwc"][2])
        layers = [dict(layer) for layer in data["layers"]]
        found = Folded(
            name=str(data["name"]),
            px=int(px),
            mean=(float(zero) / 255,) * channels,
            std=(1 / (255 * float(scale)),) * channels,
            layers=tuple(_layer(layer, arrays) for layer in layers if _has_weights(layer)),
        )
        classes = int(data["classes"])
        if not 0 < len(found.layers) <= 4096 or len(found.layers[-1].bias) != classes:
            raise ValueError(f"the last layer has not the {classes} classes")
    except (KeyError, IndexError, TypeError, ValueError, OverflowError, ZeroDivisionError) as error:
        raise UserError(
            "8-bit weights of another layout",
            expected="layers `conv`, `depthwise`, `add`, `global_avg`, each of the first two with"
            " N.weight (uint8), N.w_scale, N.w_zero and N.bias (int32) in the archive",
            found=error.args[0] if isinstance(error, ValueError) else repr(error),
            where=f"{described}, {path.name}",
            fix="see docs/pretrained.md, networks of 8 bits",
        ) from error
    return found if classes != _BACKGROUND else _without_background(found)


def _has_weights(layer: Mapping[str, Any]) -> bool:
    kind = layer["op"]
    if kind not in (*_KINDS, *_WITHOUT_WEIGHTS):
        raise ValueError(f"layer {layer.get('layer')} is of kind {kind!r}")
    return kind in _KINDS


def _layer(layer: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> FoldedLayer:
    """One layer in floats.

    Raises:
        KeyError, ValueError: an array is missing, or of another type or shape.
    """
    number, is_depthwise = layer["layer"], layer["op"] == "depthwise"
    codes = _array(arrays, f"{number}.weight", np.uint8, 4)
    out = codes.shape[3 if is_depthwise else 0]
    scale, zero = (
        _array(arrays, f"{number}.{name}", kind, 1).astype(np.float64)
        for name, kind in (("w_scale", np.floating), ("w_zero", np.integer))
    )
    if is_depthwise and codes.shape[0] != 1:
        raise ValueError(f"{number}.weight {list(codes.shape)}: expected [1, kh, kw, channels]")
    weight = codes.transpose(3, 0, 1, 2) if is_depthwise else codes.transpose(0, 3, 1, 2)
    per_channel = (-1, 1, 1, 1)
    values = (weight - zero.reshape(per_channel)) * scale.reshape(per_channel)
    bias = _array(arrays, f"{number}.bias", np.int32, 1) * float(layer["in_scale"]) * scale
    moments = [_moment(arrays, f"{number}.{kind}", out) for kind in ("mean", "var")]
    if bias.shape != (out,) or (moments[0] is None) != (moments[1] is None):
        raise ValueError(f"layer {number}: bias or statistics do not fit {out} channels")
    if not np.isfinite(values).all() or not np.isfinite(bias).all():
        raise ValueError(f"layer {number} has values that are not finite")
    return FoldedLayer(_tensor(values), _tensor(bias), *moments)


def _moment(arrays: Mapping[str, NDArray[Any]], name: str, size: int) -> Tensor | None:
    if name not in arrays:
        return None
    values = _array(arrays, name, np.floating, 1)
    if values.shape != (size,) or not np.isfinite(values).all():
        raise ValueError(f"{name} {list(values.shape)}: expected {size} finite numbers")
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
    kept = FoldedLayer(last.weight[1:].clone(), last.bias[1:].clone())
    return Folded(network.name, network.px, network.mean, network.std, (*others, kept))
