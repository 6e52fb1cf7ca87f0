"""Static modules: `build_subnet` turns one arch into a plain timm EfficientNet.

The network is described by JSON-ready data (`subnet_definition`), from which timm alone can build
it again. Two things that timm's constructor does not take are set afterwards: the stride of the
stem and the activation of the head.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from timm.layers import create_act_layer
from timm.models._efficientnet_blocks import SqueezeExcite
from timm.models.efficientnet import EfficientNet
from torch import nn
from torch.overrides import TorchFunctionMode

from hwnas.nets.depthwise import DepthwiseConv2d
from hwnas.spaces.arch import Arch
from hwnas.spaces.lowering import lower_slots, slot_names
from hwnas.spaces.ops import Layer, OpSpec
from hwnas.spaces.space import SearchSpace

__all__ = [
    "active_slots",
    "build_from_definition",
    "build_subnet",
    "subnet_definition",
    "timm_names",
]

_BLOCK_TYPES = {"mbconv": "ir", "dsconv": "ds"}
_BN_AFTER = {  # timm's names inside one block
    "mbconv": {"conv_pw": "bn1", "conv_dw": "bn2", "conv_pwl": "bn3"},
    "dsconv": {"conv_dw": "bn1", "conv_pw": "bn2"},
}
_OUTSIDE_BLOCKS = {
    "stem": ("conv_stem", "bn1"),
    "head": ("conv_head", "bn2"),
    "classifier": ("classifier", ""),
}
_NEVER_DILATE = 1 << 30  # timm trades strides for dilation beyond this output stride


def active_slots(space: SearchSpace, arch: Arch) -> Iterator[tuple[str, OpSpec]]:
    """(slot name, operator) of every operator of `arch`, in execution order.

    Raises:
        UserError: the arch is not a member of the space.
    """
    space.check(arch)
    for name, op in zip(slot_names(space), lower_slots(space.macro, arch.codes), strict=True):
        if op is not None:
            yield name, op


def timm_names(slot: str, op: OpSpec, layer: Layer) -> tuple[str, str]:
    """Paths of a layer and of the BN after it ("" if none) in timm's EfficientNet."""
    if slot in _OUTSIDE_BLOCKS:
        return _OUTSIDE_BLOCKS[slot]
    block = slot.replace("stage", "blocks.").replace(".block", ".")
    bn = _BN_AFTER[op.kind].get(layer.name)
    return f"{block}.{layer.name}", f"{block}.{bn}" if bn else ""


def subnet_definition(space: SearchSpace, arch: Arch) -> dict[str, Any]:
    """JSON-ready description of `arch` in timm's terms; `build_from_definition` is its inverse.

    `block_args` are timm's. `exp_ratio` and `se_ratio` are exact quotients: timm
    multiplies and rounds them back to the integers of `lower()`.
    """
    stages: list[list[dict[str, Any]]] = []
    outer: dict[str, OpSpec] = {}
    for slot, op in active_slots(space, arch):
        if op.kind not in _BLOCK_TYPES:
            outer[slot] = op
            continue
        if slot.endswith(".block0"):
            stages.append([])
        block = {
            "block_type": _BLOCK_TYPES[op.kind],
            "out_chs": op.out_channels,
            "dw_kernel_size": op.kernel,
            "stride": op.stride,
            "act_layer": op.act,
            "se_ratio": op.se_channels / op.in_channels,
            "noskip": not op.skip,
        }
        if op.kind == "mbconv":
            block["exp_ratio"] = op.mid_channels / op.in_channels
        stages[-1].append(block)
    stem, head, classifier = outer["stem"], outer["head"], outer["classifier"]
    return {
        "schema_version": 1,
        "resolution": stem.in_hw,
        "in_chans": stem.in_channels,
        "num_classes": classifier.out_channels,
        "stem_size": stem.out_channels,
        "stem_kernel_size": stem.kernel,
        "stem_stride": stem.stride,
        "stem_act": stem.act,
        "block_args": stages,
        "num_features": head.out_channels,
        "head_act": head.act,
    }


def build_from_definition(definition: dict[str, Any]) -> nn.Module:
    """The timm model of a `subnet_definition`, initialised from torch's global generator."""
    model = EfficientNet(
        block_args=[[dict(block) for block in stage] for stage in definition["block_args"]],
        num_classes=definition["num_classes"],
        num_features=definition["num_features"],
        in_chans=definition["in_chans"],
        stem_size=definition["stem_size"],
        stem_kernel_size=definition["stem_kernel_size"],
        fix_stem=True,
        output_stride=_NEVER_DILATE,
        act_layer=definition["stem_act"],
        se_layer=partial(SqueezeExcite, gate_layer="hard_sigmoid", force_act_layer="relu"),
        round_chs_fn=int,
    )
    model.conv_stem.stride = (definition["stem_stride"],) * 2
    model.bn2.act = create_act_layer(definition["head_act"], inplace=True)
    assert isinstance(model, nn.Module)
    return model


def build_subnet(space: SearchSpace, arch: Arch, *, seed: int | None = 0) -> nn.Module:
    """The static network of `arch`: [B, C, px, px] -> logits [B, classes].

    A `timm.models.efficientnet.EfficientNet` with symmetric padding and exactly the channels of
    `lower()`, initialised as timm does from `seed` (None: weights are left uninitialised). torch's
    global generator is left as it was. Depthwise layers are `DepthwiseConv2d`: the same function
    and the same names, with a faster backward pass.
    """
    definition = subnet_definition(space, arch)
    if seed is None:
        with _WithoutRandomInit():
            model = build_from_definition(definition)
    else:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # the CPU's alone
            model = build_from_definition(definition)
    for name, module in list(model.named_modules()):
        if name.endswith(".conv_dw") and isinstance(module, nn.Conv2d):
            model.set_submodule(name, DepthwiseConv2d.of(module))
    return model


class _WithoutRandomInit(TorchFunctionMode):
    """Skips random initialisation, which is most of the time that building a network takes."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in (nn.init.kaiming_uniform_, nn.init.normal_, nn.init.uniform_):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)
