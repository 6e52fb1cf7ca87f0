"""Reads networks of the ProxylessNAS repository: a JSON list of layers and its weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hwnas.core.arrays import read_npz
from hwnas.core.errors import UserError, parts_of
from hwnas.core.store import content_hash, read_json
from hwnas.nets.definition import define, places, timm_names
from hwnas.nets.subnet import active_slots, build_from_definition
from hwnas.spaces import proxyless
from hwnas.spaces.ops import OpSpec, layers

__all__ = ["read_proxyless"]

_BLOCKS_OF_STAGES = (1, 4, 4, 4, 4, 4, 1)
_OUTSIDE_BLOCKS = {
    "stem": "first_conv",
    "head": "feature_mix_layer",
    "classifier": "classifier.linear",
}
_INSIDE_BLOCKS = {
    "mbconv": ("inverted_bottleneck", "depth_conv", "point_linear"),
    "dsconv": ("depth_conv", "point_linear"),
}
_BN = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def read_proxyless(description: Path, weights: Path) -> nn.Module:
    """Builds the network that a layer list of mit-han-lab/proxylessnas describes, in eval mode.

    It is an arch of the space `proxyless` with the widths of the list, with one exception: in some
    published networks, the first block of a stage has no residual connection, although the shapes
    match. `hwnas.nets.subnet.input_shape_of` returns its resolution. Its images are RGB in [-1, 1].

    Args:
        description: JSON file with `first_conv`, `blocks`, `feature_mix_layer`, `classifier`, `bn`.
        weights: numpy archive of its torch state dict.

    Raises:
        UserError: a file has another format, or the files do not fit each other.
    """
    data = read_json(description)
    try:
        slots = list(_slots(data))
        bn_eps = float(data["bn"]["eps"])
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise UserError(
            "not a layer list of ProxylessNAS",
            **{
                "expected": "the keys first_conv, blocks, feature_mix_layer, classifier and bn, in"
                " the layout of the layer lists of ProxylessNAS",
                **parts_of(error),
            },
            where=description,
            fix="copy or download the list of this network again",
        ) from error
    name = f"proxyless_{content_hash([op.key for _, op in slots])}"
    model = build_from_definition(define(slots, name=name, bn_eps=bn_eps), seed=None)
    try:
        model.load_state_dict(_renamed(slots, read_npz(weights)))
    except (OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(
            "the weights do not fit the layer list",
            expected="one array for every tensor of the network that the list describes",
            found=parts_of(error)["found"],
            where=f"{weights}, {description}",
            fix="give the weights and the layer list of the same network",
        ) from error
    return model.eval()


def _slots(data: Mapping[str, Any]) -> Iterator[tuple[str, OpSpec]]:
    """(slot, operator) of the described network, lowered as an arch of the space `proxyless`."""
    blocks = [block["mobile_inverted_conv"] for block in data["blocks"]]
    first = np.cumsum([0, *_BLOCKS_OF_STAGES[:-1]])
    space = proxyless.build(
        proxyless.Config(
            resolutions=(data["resolution"],),
            widths=(
                data["first_conv"]["out_channels"],
                *(blocks[i]["out_channels"] for i in first),
                data["feature_mix_layer"]["out_channels"],
            ),
        ),
        num_classes=data["classifier"]["out_features"],
        in_channels=data["first_conv"]["in_channels"],
    )
    ops = iter(blocks[1:])
    codes = [c.values.index(_op_name(next(ops))) if c.role == "op" else 0 for c in space.choices]
    for slot, op in active_slots(space, space.arch(codes)):
        if slot.startswith("stage"):
            op = replace(op, skip=data["blocks"][_block_number(slot)]["shortcut"] is not None)
        yield slot, op


def _op_name(block: Mapping[str, Any]) -> str:
    if block["name"] == "ZeroLayer":
        return "skip"
    return f"k{block['kernel_size']}_e{block['expand_ratio']}"


def _block_number(slot: str) -> int:
    """Position in the layer list of a slot such as `stage1.block2`."""
    stage, block = (int(part) for part in slot.removeprefix("stage").split(".block"))
    return sum(_BLOCKS_OF_STAGES[:stage]) + block


def _renamed(
    slots: list[tuple[str, OpSpec]], arrays: Mapping[str, NDArray[Any]]
) -> dict[str, torch.Tensor]:
    """The state dict of our network with these operators."""
    names = {}
    for place, (slot, op) in zip(places([slot for slot, _ in slots]), slots, strict=True):
        paths: tuple[str, ...] = (_OUTSIDE_BLOCKS.get(slot, ""),)
        if op.kind in _INSIDE_BLOCKS:
            block = f"blocks.{_block_number(slot)}.mobile_inverted_conv"
            paths = tuple(f"{block}.{part}" for part in _INSIDE_BLOCKS[op.kind])
        for layer, theirs in zip(layers(op), paths):
            ours, bn = timm_names(place, op, layer)
            if layer.has_bn:
                names[f"{ours}.weight"] = f"{theirs}.conv.weight"
                names |= {f"{bn}.{kind}": f"{theirs}.bn.{kind}" for kind in _BN}
            else:
                names |= {f"{ours}.{kind}": f"{theirs}.{kind}" for kind in ("weight", "bias")}
    return {ours: torch.from_numpy(arrays[theirs]) for ours, theirs in names.items()}
