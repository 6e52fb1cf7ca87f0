"""Definitions of static networks as JSON values, for timm's blocks where possible."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hwnas.spaces.network import Network
from hwnas.spaces.ops import Layer, OpSpec, layers
from hwnas.spaces.padding import same_padding

__all__ = ["define", "define_graph", "graph_names", "places", "timm_names"]

_BLOCK_TYPES = {"conv": "cn", "mbconv": "ir", "dsconv": "ds", "uib": "uir", "fused": "er"}
_BN_AFTER = {  # names in timm within one block
    "conv": {"conv": "bn1"},
    "mbconv": {"conv_pw": "bn1", "conv_dw": "bn2", "conv_pwl": "bn3"},
    "dsconv": {"conv_dw": "bn1", "conv_pw": "bn2"},
    "fused": {"conv_exp": "bn1", "conv_pwl": "bn2"},
    "basic": {"conv1": "bn1", "conv2": "bn2", "conv_shortcut": "bn_shortcut"},
    "norm": {"norm": "bn1"},
    "sep_conv": {"pw1": "bn1", "pw2": "bn2"},
    "dil_conv": {"pw1": "bn1"},
    "factorized": {"conv_1": "bn1", "conv_2": "bn2"},
    **{"join": {}, "highway": {}},
}
_KERNELS = {"uib": "dw_kernel_size_mid", "fused": "exp_kernel_size"}
_OWN_MODULES = ("dw_start", "pw_exp", "dw_mid", "pw_proj")  # modules with a convolution and its BN
_OUTSIDE_BLOCKS = {
    "stem": ("conv_stem", "bn1"),
    "head": ("conv_head", "bn2"),
    "feature": ("conv_head", "norm_head"),
    "classifier": ("classifier", ""),
}
_NEVER_DILATE = 1 << 30  # timm replaces strides by dilation above this output stride
_V3_OUTPUT_STRIDE = 32  # the same limit in timm's MobileNetV3, which has no argument for it
_ROUNDED_TO = 8  # timm rounds the depthwise width of an inverted residual to multiples of this


def timm_names(place: str, op: OpSpec, layer: Layer) -> tuple[str, str]:
    """Returns the module paths of `layer` and of the BN after it ("" if none) in a timm model.

    place: where the model has the operator, as `places` returns it, e.g. `stage0.block1`.
    """
    if place in _OUTSIDE_BLOCKS:
        name, bn = _OUTSIDE_BLOCKS[place]
        return name, bn if layer.has_bn else ""
    return _in_block(place.replace("stage", "blocks.").replace(".block", "."), op, layer)


def graph_names(slot: str, op: OpSpec, layer: Layer) -> tuple[str, str]:
    """Like `timm_names`, for a network that is not a chain. Its modules are named after slots."""
    return (slot, "") if op.kind == "linear" else _in_block(slot, op, layer)


def _in_block(block: str, op: OpSpec, layer: Layer) -> tuple[str, str]:
    if layer.name in _OWN_MODULES:
        return f"{block}.{layer.name}.conv", f"{block}.{layer.name}.bn"
    bn = _BN_AFTER[op.kind].get(layer.name, "")
    return f"{block}.{layer.name}", f"{block}.{bn}" if bn else ""


def places(slots: Sequence[str]) -> list[str]:
    """Returns where a static network has the operator of each slot, e.g. `stage0.block1`.

    Blocks are numbered without gaps, although an arch can omit blocks. If a convolution follows the
    pooling (MobileNetV3), the convolution before the pooling counts as one more stage, as in timm.
    """
    stages = list(dict.fromkeys(slot.partition(".")[0] for slot in slots if "." in slot))
    n_blocks = dict.fromkeys(stages, 0)
    found = []
    for slot in slots:
        stage = slot.partition(".")[0]
        if stage in n_blocks:
            found.append(f"stage{stages.index(stage)}.block{n_blocks[stage]}")
            n_blocks[stage] += 1
        elif slot == "head" and "feature" in slots:
            found.append(f"stage{len(stages)}.block0")
        else:
            found.append(slot)
    return found


def define(slots: Sequence[tuple[str, OpSpec]], *, name: str, bn_eps: float) -> dict[str, Any]:
    """Describes the network with these (slot, operator) pairs as JSON values.

    `form` is `timm` if timm's blocks can express every operator (built by `timm_net`), else `torch`
    (built by `plain_net`). `name` is the name under which timm registers the network.
    """
    outer: dict[str, OpSpec] = {}
    stages: dict[str, list[OpSpec]] = {}
    for place, (_, op) in zip(places([slot for slot, _ in slots]), slots, strict=True):
        stage, _, block = place.partition(".")
        if block:
            stages.setdefault(stage, []).append(op)
        else:
            outer[place] = op
    network = _Network(
        outer["stem"],
        tuple(stages.values()),
        outer.get("feature", outer.get("head")),
        outer["classifier"].out_channels,
        has_pooled_head="feature" in outer,
        stem_pool=outer.get("stem_pool"),
    )
    return {
        "schema_version": 1,
        "name": name,
        "resolution": outer["stem"].in_hw,
        "bn_eps": bn_eps,
        **(_in_timms_terms(network) if _timm_can_say(network) else _in_plain_terms(network)),
    }


def define_graph(
    network: Network, slots: Sequence[str], *, name: str, bn_eps: float, auxiliary: str = ""
) -> dict[str, Any]:
    """Describes a network that is not a chain as JSON values, which `graph_net.build` reads.

    slots: the slot of every operator of `network`. Those that `Network.live` drops are left out.
    auxiliary: the slot that an auxiliary classifier reads in training.
    """
    stem, last = network.ops[0], network.ops[-1]
    steps = network.program
    linear = {value for s in steps if s.op and s.op.kind == "linear" for value in s.reads}
    ops = {
        slots[s.position]: {
            **asdict(s.op),
            "is_flat": s.writes in linear,
            "is_act_first": network.act_first and s.op.kind == "conv",
        }
        for s in steps
        if s.op is not None
    }
    return {
        "schema_version": 1,
        "name": name,
        "resolution": stem.in_hw,
        "bn_eps": bn_eps,
        "form": "recurrent" if stem.kind == "embed" else "graph",
        "in_channels": stem.in_channels,
        "num_classes": last.out_channels,
        "ops": ops,
        "steps": [[s.op and slots[s.position], list(s.reads), s.writes] for s in steps],
        "branches": [slots[s.position] for s in steps if s.op and s.position in network.branches],
        **({"auxiliary": auxiliary} if auxiliary else {}),
    }


@dataclass(frozen=True)
class _Network:
    """The operators of a network, grouped as in a static network."""

    stem: OpSpec
    stages: tuple[list[OpSpec], ...]
    head: OpSpec | None
    num_classes: int
    has_pooled_head: bool
    """Whether the head comes after the pooling."""
    stem_pool: OpSpec | None = None
    """The pooling between stem and blocks."""

    @property
    def ops(self) -> list[OpSpec]:
        """Stem and blocks."""
        return [self.stem, *(op for stage in self.stages for op in stage)]


def _timm_can_say(network: _Network) -> bool:
    if network.has_pooled_head:
        strides = math.prod(op.stride for stage in network.stages for op in stage)
        if network.stem.kernel != 3 or 2 * strides > _V3_OUTPUT_STRIDE:
            return False
    if _is_same(network) and not all(map(_pads_same, network.ops)):
        return False
    if _timms_se(network) is None:
        return False
    if network.stem_pool is not None:
        return False
    return bool(network.stages) and all(_is_timms(op) for stage in network.stages for op in stage)


def _is_timms(op: OpSpec) -> bool:
    if op.kind == "basic" or op.groups > 1 or (op.skip and op.stride > 1) or op.has_projection:
        return False
    if op.expand_groups > 1 and op.kind != "fused":
        return False
    if any(kernel % 2 == 0 for kernel in op.kernels):  # timm pads even kernels in a different way
        return False
    if op.out_act != "none" and (op.kind, op.out_act, op.skip) != ("dsconv", op.act, False):
        return False
    return op.kind == "dsconv" or op.mid_channels % _ROUNDED_TO == 0


def _is_same(network: _Network) -> bool:
    """Whether maps are padded as in TensorFlow."""
    return any(layer.pad_more for op in network.ops for layer in layers(op))


def _pads_same(op: OpSpec) -> bool:
    return all(
        (layer.padding, layer.pad_more) == same_padding(layer.in_hw, layer.kernel, layer.stride)
        for layer in layers(op)
    )


def _timms_se(network: _Network) -> dict[str, str] | None:
    """Arguments of timm for SE; empty for the defaults of hwnas; None if timm cannot express it."""
    gated = [op for op in network.ops if op.se_channels]
    gates, acts = {op.se_gate for op in gated}, {op.se_act for op in gated}
    if gates <= {"hard_sigmoid"} and acts <= {"relu"}:
        return {}
    if len(gates) > 1:
        return None
    gate: dict[str, str] = {"gate_layer": gates.pop()}
    if len(acts) == 1:
        return gate | {"force_act_layer": acts.pop()}
    return gate if all(op.se_act == op.act for op in gated) else None


def _in_timms_terms(network: _Network) -> dict[str, Any]:
    stem, head = network.stem, network.head
    args: dict[str, Any] = {
        "block_args": [[_block_args(op) for op in stage] for stage in network.stages],
        "num_classes": network.num_classes,
        "num_features": head.out_channels if head else 0,
        "in_chans": stem.in_channels,
        "stem_size": stem.out_channels,
        "fix_stem": True,
        "drop_rate": 0.0,
        "drop_path_rate": 0.0,
    }
    if _is_same(network):
        args["pad_type"] = "same"
    if head and network.has_pooled_head:
        args |= {"head_bias": head.norm == "bias", "se_from_exp": False}
        args |= {"head_norm": True} if head.norm == "bn" else {}
    else:
        args |= {"stem_kernel_size": stem.kernel, "output_stride": _NEVER_DILATE}
    last, act_at = (head, "bn2.act") if head else (stem, "bn1.act")  # in timm's names
    if network.has_pooled_head:
        act_at = "norm_head.act" if last.norm == "bn" else "act2"
    se = _timms_se(network)
    return {
        "form": "timm",
        "class": "MobileNetV3" if network.has_pooled_head else "EfficientNet",
        "args": args,
        "stem_stride": stem.stride,
        "stem_act": _timm_act(stem.act),
        "head_act": _timm_act(last.act),
        "act_at": act_at,
        **({"se": se} if se else {}),
    }


def _block_args(op: OpSpec) -> dict[str, Any]:
    """Arguments of timm for one block.

    `exp_ratio` and `se_ratio` are exact quotients. timm multiplies and rounds them, which gives the
    integers of `lower()` again.
    """
    common = {
        "block_type": _BLOCK_TYPES[op.kind],
        "out_chs": op.out_channels,
        "stride": op.stride,
        "act_layer": _timm_act(op.act),
    }
    if op.kind == "conv":
        return common | {"kernel_size": op.kernel, **({"skip": True} if op.skip else {})}
    ratio = {} if op.kind == "dsconv" else {"exp_ratio": op.mid_channels / op.in_channels}
    se_ratio = op.se_channels / op.in_channels
    skip = {"noskip": not op.skip, **({"pw_act": True} if op.out_act != "none" else {})}
    kernels = {_KERNELS.get(op.kind, "dw_kernel_size"): op.kernel}
    if op.kind == "uib":
        kernels["dw_kernel_size_start"] = op.start_kernel
    if op.expand_groups > 1:
        kernels["group_size"] = op.mid_channels // op.expand_groups
    return common | {**kernels, "se_ratio": se_ratio, **skip, **ratio}


def _timm_act(act: str) -> str:
    return "identity" if act == "none" else act


def _in_plain_terms(network: _Network) -> dict[str, Any]:
    last = {} if network.head else {"num_features": network.ops[-1].out_channels}
    return {
        "form": "torch",
        "stem": asdict(network.stem),
        **({"stem_pool": asdict(network.stem_pool)} if network.stem_pool else {}),
        "stages": [[asdict(op) for op in stage] for stage in network.stages],
        "head": asdict(network.head) if network.head else None,
        "has_pooled_head": network.has_pooled_head,
        **last,
        "num_classes": network.num_classes,
    }
