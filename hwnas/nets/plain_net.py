"""A network of inverted residuals from its JSON definition; needs only torch.

It supports operators that timm's mobile blocks lack: grouped 1x1 convolutions with or without
channel shuffle, windows of even size (2x2, 4x4), residual connections with average pooling and a
1x1 convolution, an activation after the residual add, and the blocks of ResNet-18. Parameters are
named and initialised as in timm.
"""

import json
import math
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "hard_swish": nn.Hardswish,
    "swish": nn.SiLU,
}
GATES: dict[str, type[nn.Module]] = {"hard_sigmoid": nn.Hardsigmoid, "sigmoid": nn.Sigmoid}


class PaddedConv2d(nn.Conv2d):
    """A convolution that also pads `pad_more` zero rows at the bottom and columns on the right."""

    pad_more: int = 0

    def forward(self, x: Tensor) -> Tensor:
        """[B, in, px, px] -> [B, out, px', px']."""
        return super().forward(F.pad(x, (0, self.pad_more, 0, self.pad_more)))


class ConvBnAct(nn.Module):
    """Convolution, BN, activation."""

    def __init__(self, op: dict[str, Any], bn_eps: float) -> None:
        super().__init__()
        self.conv = _conv(op)
        self.bn1 = nn.BatchNorm2d(op["out_channels"], bn_eps)
        self.act1 = _act(op["act"])

    def forward(self, x: Tensor) -> Tensor:
        """[B, in, px, px] -> [B, out, px', px']."""
        return self.act1(self.bn1(self.conv(x)))  # type: ignore[no-any-return]


class SqueezeExcite(nn.Module):
    """Scales channels by a gate computed from their means (1905.02244, section 5.3)."""

    def __init__(self, channels: int, reduced: int, act: str, gate: str) -> None:
        super().__init__()
        self.conv_reduce = nn.Conv2d(channels, reduced, 1)
        self.act1 = _act(act)
        self.conv_expand = nn.Conv2d(reduced, channels, 1)
        self.gate = GATES[gate]()

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, px, px] -> the same shape."""
        mean = x.mean((2, 3), keepdim=True)
        return x * self.gate(self.conv_expand(self.act1(self.conv_reduce(mean))))  # type: ignore[no-any-return]


class ChannelShuffle(nn.Module):
    """Distributes the channels of every group over all groups (1707.01083, section 3.1)."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, px, px] -> the same shape."""
        batch, channels, *maps = x.shape
        apart = x.reshape(batch, self.groups, channels // self.groups, *maps)
        return apart.transpose(1, 2).reshape(batch, channels, *maps)


class ConvBn(nn.Module):
    """Convolution, BN, activation: a layer of a universal inverted bottleneck."""

    def __init__(self, conv: nn.Conv2d, bn_eps: float, act: str = "none") -> None:
        super().__init__()
        self.conv = conv
        self.bn = nn.BatchNorm2d(conv.out_channels, bn_eps)
        self.act = _act(act)

    def forward(self, x: Tensor) -> Tensor:
        """[B, in, px, px] -> [B, out, px', px']."""
        return self.act(self.bn(self.conv(x)))  # type: ignore[no-any-return]


def _inverted_residual(op: dict[str, Any], bn_eps: float) -> dict[str, nn.Module]:
    """Layers of an `mbconv`, `dsconv` or `fused`, each with its own BN and activation."""
    mid, groups, kind = op["mid_channels"], op["groups"], op["kind"]
    expand_groups = max(groups, op.get("expand_groups", 1))
    main: dict[str, nn.Module] = {}

    def add(name: str, conv: nn.Conv2d, act: str) -> None:
        n = sum(name.startswith("bn") for name in main) + 1
        main[name] = conv
        main[f"bn{n}"] = nn.BatchNorm2d(conv.out_channels, bn_eps)
        main[f"act{n}"] = _act(act)

    if kind == "mbconv":
        add("conv_pw", _pointwise(op["in_channels"], mid, expand_groups), op["act"])
        if groups > 1:
            main["shuffle"] = ChannelShuffle(groups)
    if kind == "fused":
        add("conv_exp", _conv({**op, "out_channels": mid, "groups": expand_groups}), op["act"])
    else:
        add("conv_dw", _depthwise(op, mid), op["act"])
    main |= _gate(op)
    last = _pointwise(mid, op["out_channels"], groups)
    add("conv_pw" if kind == "dsconv" else "conv_pwl", last, "none")
    return main


def _universal(op: dict[str, Any], bn_eps: float) -> dict[str, nn.Module]:
    """Layers of a `uib`; the stride belongs to the last depthwise convolution."""
    mid, groups, main = op["mid_channels"], op["groups"], dict[str, nn.Module]()
    if start := op["start_kernel"]:
        alone = {"kernel": start}
        if op["kernel"]:  # an even window has one more row of zeros at the bottom
            even = start % 2 == 0
            alone |= {"stride": 1, "padding": (start - 1) // 2, "pad_more": int(even)}
        main["dw_start"] = ConvBn(_depthwise({**op, **alone}, op["in_channels"]), bn_eps)
    wide = _pointwise(op["in_channels"], mid, max(groups, op["expand_groups"]))
    main["pw_exp"] = ConvBn(wide, bn_eps, op["act"])
    if groups > 1:
        main["shuffle"] = ChannelShuffle(groups)
    if op["kernel"]:
        main["dw_mid"] = ConvBn(_depthwise(op, mid), bn_eps, op["act"])
    main |= _gate(op)
    main["pw_proj"] = ConvBn(_pointwise(mid, op["out_channels"], groups), bn_eps)
    return main


def _basic(op: dict[str, Any], bn_eps: float) -> dict[str, nn.Module]:
    """Layers of a `basic` block: two convolutions, the first with the stride."""
    mid, out = op["mid_channels"], op["out_channels"]
    first = {**op, "out_channels": mid, "groups": 1}
    second = {**op, "in_channels": mid, "groups": 1, "stride": 1, "padding": op["kernel"] // 2}
    return {
        "conv1": _conv(first),
        "bn1": nn.BatchNorm2d(mid, bn_eps),
        "act1": _act(op["act"]),
        "conv2": _conv({**second, "pad_more": 0}),
        "bn2": nn.BatchNorm2d(out, bn_eps),
    }


_LAYERS = {"uib": _universal, "basic": _basic}
"""Maps kinds of blocks to functions that build their layers; others: inverted residuals."""


class Block(nn.Module):
    """One block, with a residual connection if its operator has one."""

    def __init__(self, op: dict[str, Any], bn_eps: float) -> None:
        super().__init__()
        main = _LAYERS.get(op["kind"], _inverted_residual)(op, bn_eps)
        self.main, self.has_skip = tuple(main), op["skip"]
        for name, module in main.items():
            self.add_module(name, module)
        ends, stride = (op["in_channels"], op["out_channels"]), op["stride"]
        if self.has_skip and op["kind"] == "basic" and (stride > 1 or ends[0] != ends[1]):
            self.conv_shortcut = nn.Conv2d(*ends, 1, stride, bias=False)
            self.bn_shortcut = nn.BatchNorm2d(ends[1], bn_eps)
        elif self.has_skip:
            if stride > 1:
                self.pool_shortcut = nn.AvgPool2d(stride, ceil_mode=True, count_include_pad=False)
            if ends[0] != ends[1]:
                self.conv_shortcut = _pointwise(*ends)
        self.drop_path = nn.Identity()  # training can drop the main branch here
        self.out_act = _act(op["out_act"])

    def forward(self, x: Tensor) -> Tensor:
        """[B, in, px, px] -> [B, out, px', px']."""
        out = x
        for name in self.main:
            out = getattr(self, name)(out)
        if self.has_skip:
            for name in ("pool_shortcut", "conv_shortcut", "bn_shortcut"):
                x = getattr(self, name)(x) if hasattr(self, name) else x
            out = self.drop_path(out) + x
        return self.out_act(out)  # type: ignore[no-any-return]


class Network(nn.Module):
    """Stem, stages of blocks, head, global mean, classifier; the head can come after the mean."""

    bn2: nn.Module
    norm_head: nn.Module

    def __init__(self, definition: dict[str, Any]) -> None:
        super().__init__()
        stem, head, bn_eps = definition["stem"], definition["head"], definition["bn_eps"]
        stages = [[build_block(op, bn_eps) for op in ops] for ops in definition["stages"]]
        self.conv_stem = _conv(stem)
        self.bn1 = nn.BatchNorm2d(stem["out_channels"], bn_eps)
        self.act1 = _act(stem["act"])
        self.stem_pool = _pool(definition.get("stem_pool"))
        self.blocks = nn.Sequential(*(nn.Sequential(*blocks) for blocks in stages))
        self.has_pooled_head = definition["has_pooled_head"]
        self.conv_head = _conv(head) if head else nn.Identity()
        has_bn = head is not None and head["norm"] == "bn"
        norm = nn.BatchNorm2d(head["out_channels"], bn_eps) if has_bn else nn.Identity()
        if self.has_pooled_head:
            self.norm_head = norm
        else:
            self.bn2 = norm
        self.act2 = _act(head["act"] if head else "none")
        width = head["out_channels"] if head else definition["num_features"]
        self.classifier = nn.Linear(width, definition["num_classes"])
        self.apply(_initialise)

    def forward(self, x: Tensor) -> Tensor:
        """Images [B, C, px, px] -> logits [B, classes]."""
        x = self.blocks(self.stem_pool(self.act1(self.bn1(self.conv_stem(x)))))
        if self.has_pooled_head:
            x = self.conv_head(x.mean((2, 3), keepdim=True))
            x = self.act2(self.norm_head(x)).flatten(1)
        else:
            x = self.act2(self.bn2(self.conv_head(x))).mean((2, 3))
        logits: Tensor = self.classifier(x)
        return logits


def build_block(op: dict[str, Any], bn_eps: float) -> nn.Module:
    """The block of one operator."""
    return (ConvBnAct if op["kind"] == "conv" else Block)(op, bn_eps)


def build(definition: dict[str, Any]) -> nn.Module:
    """Builds the network of a definition."""
    return Network(definition)


def load(path: Path) -> nn.Module:
    """Loads a definition from the file `path` and builds its network."""
    return build(json.loads(path.read_text()))


def _act(name: str) -> nn.Module:
    return nn.Identity() if name == "none" else ACTIVATIONS[name](inplace=True)


def _pool(op: dict[str, Any] | None) -> nn.Module:
    return nn.MaxPool2d(op["kernel"], op["stride"], op["padding"]) if op else nn.Identity()


def _conv(op: dict[str, Any]) -> nn.Conv2d:
    """The convolution with the kernel, stride and padding of an operator."""
    names = ("in_channels", "out_channels", "groups", "stride", "padding")
    settings = {name: op[name] for name in names}
    settings |= {"kernel_size": op["kernel"], "bias": op["norm"] == "bias"}
    settings |= {"dilation": op.get("dilation", 1)}
    if not op.get("pad_more"):
        return nn.Conv2d(**settings)
    found = PaddedConv2d(**settings)
    found.pad_more = op["pad_more"]
    return found


def _depthwise(op: dict[str, Any], channels: int) -> nn.Conv2d:
    return _conv({**op, "in_channels": channels, "out_channels": channels, "groups": channels})


def _gate(op: dict[str, Any]) -> dict[str, nn.Module]:
    if not op["se_channels"]:
        return {}
    act, gate = op.get("se_act", "relu"), op.get("se_gate", "hard_sigmoid")
    return {"se": SqueezeExcite(op["mid_channels"], op["se_channels"], act, gate)}


def _pointwise(in_channels: int, out_channels: int, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 1, groups=groups, bias=False)


def _initialise(module: nn.Module) -> None:
    """He initialisation over the fan-out of a group; biases are 0."""
    if isinstance(module, nn.Conv2d):
        fan_out = module.kernel_size[0] ** 2 * module.out_channels // module.groups
        nn.init.normal_(module.weight, 0, math.sqrt(2 / fan_out))
    elif isinstance(module, nn.Linear):
        bound = 1 / math.sqrt(module.out_features)
        nn.init.uniform_(module.weight, -bound, bound)
    if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
