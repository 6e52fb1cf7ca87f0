"""Builds networks from copies of cached blocks, without initialising their weights.

A space has few different blocks but very many networks. Constructing the 400 modules of a
mobilenet_v3 network takes 34 ms; copying them takes 2 ms (measured, one thread).
"""

from __future__ import annotations

import json
from collections import OrderedDict
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from hwnas.nets import graph_net, plain_net, recurrent_net, timm_net
from hwnas.nets.depthwise import DepthwiseConv2d
from hwnas.nets.pointwise import PointwiseConv2d

__all__ = ["FORMS", "assemble", "with_fast_layers"]

FORMS = {
    "timm": timm_net.build,
    "torch": plain_net.build,
    "graph": graph_net.build,
    "recurrent": recurrent_net.build,
}
"""Maps the `form` of a definition to the function that builds its network."""

_CONTAINERS = {dict, list, set, OrderedDict}


def assemble(definition: dict[str, Any]) -> nn.Module:
    """Builds the same network as the function in `FORMS`, but faster and without initial weights.

    Parameters have arbitrary values; the running statistics of BN are those of a new layer.
    Depthwise and 1x1 layers are replaced by layers that compute the same and train faster.
    """
    if definition["form"] == "graph":
        return graph_net.GraphNetwork(definition, _operator)
    if definition["form"] == "recurrent":
        return recurrent_net.build(definition)
    parts = _timm_parts if definition["form"] == "timm" else _plain_parts
    frame, stages = parts(definition)
    model = _copy(frame)
    blocks = [nn.Sequential(*(_copy(block) for block in stage)) for stage in stages]
    model.blocks = nn.Sequential(*blocks)
    return model


def with_fast_layers(model: nn.Module) -> nn.Module:
    """Replaces the depthwise and 1x1 layers of `model` by layers that train faster."""
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Conv2d) and DepthwiseConv2d.fits(module):
            model.set_submodule(name, DepthwiseConv2d.of(module))
        elif name and isinstance(module, nn.Conv2d) and PointwiseConv2d.fits(module):
            model.set_submodule(name, PointwiseConv2d.of(module))
    return model


def _timm_parts(definition: dict[str, Any]) -> tuple[nn.Module, list[list[nn.Module]]]:
    """Prototypes: first everything except the blocks, then the blocks of every stage.

    The first prototype is a network with one cheap block per stage. This is enough, because the
    `feature_info` of a timm model depends only on the widths and strides of its stages.
    """
    stages = definition["args"]["block_args"]
    cheap = {"block_type": "cn", "kernel_size": 1, "act_layer": "identity"}
    ends = [
        [cheap | {"out_chs": stage[-1]["out_chs"], "stride": stage[0]["stride"]}]
        for stage in stages
    ]
    args = definition["args"] | {"block_args": ends}
    frame = _frame(_key(definition | {"args": args, "name": "", "resolution": 0}))
    width = definition["args"]["stem_size"]
    pad_type = definition["args"].get("pad_type", "")
    se = {"se": definition["se"]} if "se" in definition else {}
    shared = _key({"bn_eps": definition["bn_eps"], "pad_type": pad_type, **se})
    found: list[list[nn.Module]] = []
    for stage in stages:
        found.append([])
        for block in stage:
            found[-1].append(_timm_block(_key(block), width, shared))
            width = block["out_chs"]
    return frame, found


@lru_cache(maxsize=1 << 13)
def _timm_block(block: str, in_channels: int, shared: str) -> nn.Module:
    """One block, as timm builds it within an otherwise minimal network.

    shared: arguments that the block shares with the other blocks of its network.
    """
    rest = json.loads(shared)
    args = {
        "pad_type": rest.pop("pad_type"),
        "block_args": [[json.loads(block)]],
        "num_classes": 0,
        "num_features": 1,
        "stem_size": in_channels,
        "fix_stem": True,
    }
    around = {"class": "EfficientNet", "stem_stride": 1, "stem_act": "relu", **rest}
    around |= {"head_act": "relu", "act_at": "bn2.act"}
    with torch.random.fork_rng(devices=[]):
        return _weightless(timm_net.build(around | {"args": args}).blocks[0][0])


def _plain_parts(definition: dict[str, Any]) -> tuple[nn.Module, list[list[nn.Module]]]:
    """Like `_timm_parts`, for plain networks."""
    frame = _frame(_key(definition | {"stages": [], "name": "", "resolution": 0}))
    bn_eps = definition["bn_eps"]
    return frame, [[_plain_block(_key(op), bn_eps) for op in ops] for ops in definition["stages"]]


@lru_cache(maxsize=1 << 13)
def _plain_block(op: str, bn_eps: float) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        return _weightless(plain_net.build_block(json.loads(op), bn_eps))


def _operator(op: dict[str, Any], bn_eps: float) -> nn.Module:
    return _copy(_graph_operator(_key(op), bn_eps))


@lru_cache(maxsize=1 << 13)
def _graph_operator(op: str, bn_eps: float) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        operator = graph_net.build_operator(json.loads(op), bn_eps)
        return _weightless(nn.Sequential(operator)).get_submodule("0")


@lru_cache(maxsize=1 << 8)
def _frame(definition: str) -> nn.Module:
    data = json.loads(definition)
    with torch.random.fork_rng(devices=[]):
        return _weightless(FORMS[data["form"]](data))


def _key(data: dict[str, Any]) -> str:
    return json.dumps(data, sort_keys=True)


def _weightless(module: nn.Module) -> nn.Module:
    """Converts a module to a prototype: fast layers, and parameters that take no memory."""
    module = with_fast_layers(module)
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                part._parameters[name] = nn.Parameter(parameter.to("meta"))
    return module


def _copy(module: nn.Module) -> nn.Module:
    """A copy of a prototype, with parameters in memory."""
    result = module.__class__.__new__(module.__class__)
    state = {
        name: value.copy() if type(value) in _CONTAINERS else value
        for name, value in module.__dict__.items()
    }
    state["_parameters"] = {
        name: None if value is None else nn.Parameter(torch.empty(value.shape))
        for name, value in module._parameters.items()
    }
    state["_buffers"] = {
        name: None if value is None else value.clone() for name, value in module._buffers.items()
    }
    state["_modules"] = {
        name: None if child is None else _copy(child) for name, child in module._modules.items()
    }
    result.__dict__ = state
    return result
