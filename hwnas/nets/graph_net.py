"""A network of operators in a graph from its JSON definition; needs only torch."""

from typing import Any

import torch
from torch import Tensor, nn

from hwnas.nets.plain_net import Block, Network, _act, _conv, _depthwise, _initialise, _pointwise

Step = tuple[str | None, list[int], int, list[int]]
"""A step: slot of the operator (None: a sum), values to read, value to write, values to drop."""


class Convolution(nn.Module):
    """Convolution and, if the operator has one, BN; the activation comes first or last.

    The input does not change, because other operators can read it, too.
    """

    def __init__(self, op: dict[str, Any], bn_eps: float) -> None:
        super().__init__()
        self.is_act_first = op["is_act_first"]
        self.conv = _conv(op)
        has_bn = op["norm"] == "bn"
        self.bn1 = nn.BatchNorm2d(op["out_channels"], bn_eps) if has_bn else nn.Identity()
        self.act1 = (_keeping if self.is_act_first else _act)(op["act"])

    def forward(self, x: Tensor) -> Tensor:
        """[B, in, px, px] -> [B, out, px', px']."""
        if self.is_act_first:
            return self.bn1(self.conv(self.act1(x)))  # type: ignore[no-any-return]
        return self.act1(self.bn1(self.conv(x)))  # type: ignore[no-any-return]


class Norm(nn.Module):
    """BN and activation."""

    def __init__(self, op: dict[str, Any], bn_eps: float) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(op["out_channels"], bn_eps)
        self.act1 = _act(op["act"])

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, px, px] -> the same shape."""
        return self.act1(self.bn1(x))  # type: ignore[no-any-return]


class Separable(nn.Module):
    """Activation, depthwise and 1x1 convolution, BN: once (`dil_conv`) or twice (`sep_conv`).

    The first depthwise convolution has the stride.
    """

    def __init__(self, op: dict[str, Any], bn_eps: float) -> None:
        super().__init__()
        before, after = op["in_channels"], op["out_channels"]
        self.n_pairs = 2 if op["kind"] == "sep_conv" else 1
        for n in range(1, self.n_pairs + 1):
            one = {**op, "stride": op["stride"] if n == 1 else 1, "norm": "none"}
            width = after if n == self.n_pairs else before
            self.add_module(f"act{n}", _keeping(op["act"]))
            self.add_module(f"dw{n}", _depthwise(one, before))
            self.add_module(f"pw{n}", _pointwise(before, width))
            self.add_module(f"bn{n}", nn.BatchNorm2d(width, bn_eps))

    def forward(self, x: Tensor) -> Tensor:
        """[B, in, px, px] -> [B, out, px', px']."""
        for n in range(1, self.n_pairs + 1):
            for name in ("act", "dw", "pw", "bn"):
                x = getattr(self, f"{name}{n}")(x)
        return x


class FactorizedReduction(nn.Module):
    """Activation, then two 1x1 convolutions of stride 2 with BN, the second shifted by a pixel."""

    def __init__(self, op: dict[str, Any], bn_eps: float) -> None:
        super().__init__()
        one = {**op, "out_channels": op["out_channels"] // 2}
        self.act1 = _keeping(op["act"])
        self.conv_1 = _conv(one)
        self.bn1 = nn.BatchNorm2d(one["out_channels"], bn_eps)
        self.conv_2 = _conv(one)
        self.bn2 = nn.BatchNorm2d(one["out_channels"], bn_eps)

    def forward(self, x: Tensor) -> Tensor:
        """[B, in, px, px] -> [B, out, px / 2, px / 2]."""
        x = self.act1(x)
        return torch.cat([self.bn1(self.conv_1(x)), self.bn2(self.conv_2(x[:, :, 1:, 1:]))], 1)


class GlobalMean(nn.Module):
    """Global average pooling."""

    def __init__(self, *, is_flat: bool) -> None:
        super().__init__()
        self.is_flat = is_flat

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, px, px] -> [B, C], or [B, C, 1, 1] unless flat."""
        return x.mean((2, 3), keepdim=not self.is_flat)


class Concat(nn.Module):
    """Concatenates the channels of all inputs."""

    def forward(self, *parts: Tensor) -> Tensor:
        """[B, C1, px, px], [B, C2, px, px], ... -> [B, C1 + C2 + ..., px, px]."""
        return torch.cat(parts, 1)


class Cut(nn.Module):
    """Keeps only the first `channels` channels of its input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, px, px] -> [B, channels, px, px]."""
        return x[:, : self.channels]


class GraphNetwork(nn.Module):
    """Runs its operators step by step. Its modules are named after the slots of the operators.

    A step is (slot, values that it reads, value that it writes). A step without a slot adds two
    values. Values are numbered, and value 0 is the image. An operator without inputs reads zeros.
    """

    def __init__(self, definition: dict[str, Any], make: Any = None) -> None:
        super().__init__()
        self.zeros = {}
        for slot, op in definition["ops"].items():
            module = (make or build_operator)(op, definition["bn_eps"])
            parent: nn.Module = self
            *containers, name = slot.split(".")
            for container in containers:
                if container not in parent._modules:
                    parent.add_module(container, nn.Module())
                parent = parent.get_submodule(container)
            parent.add_module(name, module)
            self.zeros[slot] = (op["in_channels"], op["in_hw"], op["in_hw"])
        last = {v: t for t, (_, reads, _) in enumerate(definition["steps"]) for v in reads}
        self.steps = [
            (slot, reads, writes, [v for v in set(reads) if last[v] == t])
            for t, (slot, reads, writes) in enumerate(definition["steps"])
        ]

    def forward(self, x: Tensor) -> Tensor:
        """Images [B, C, px, px] -> logits [B, classes]."""
        return self.run(x, self.steps)

    def features(self, x: Tensor) -> Tensor:
        """The input of the global mean: [B, C, px', px']."""
        is_pool = [
            isinstance(self.get_submodule(slot or ""), GlobalMean) for slot, *_ in self.steps
        ]
        return self.run(x, self.steps[: is_pool.index(True)])

    def run(self, x: Tensor, steps: list[Step]) -> Tensor:
        """Runs `steps`, the first steps of the network, and returns the output of the last one."""
        values, found = {0: x}, x
        for slot, reads, writes, unused in steps:
            inputs = [values[value] for value in reads]
            for value in unused:
                del values[value]
            if slot is None:
                found = inputs[0] + inputs[1]
            else:
                module = self.get_submodule(slot)
                given = inputs or [x.new_zeros(x.shape[0], *self.zeros[slot])]
                if isinstance(module, nn.Linear):
                    given = [given[0].flatten(1)]
                found = module(*given)
            values[writes] = found
        return found


def _keeping(name: str) -> nn.Module:
    """An activation that does not change its input, because other operators can read it, too."""
    found = _act(name)
    if "inplace" in vars(found):
        vars(found)["inplace"] = False
    return found


def _is_open(op: dict[str, Any]) -> bool:
    """Whether incomplete windows at the border count: only if windows have no padding."""
    return bool(op["stride"] > 1 and not op["padding"])


def build_operator(op: dict[str, Any], bn_eps: float) -> nn.Module:
    """The module of one operator, with initial weights."""
    kind = op["kind"]
    if kind == "pool":
        return GlobalMean(is_flat=op["is_flat"])
    if kind == "identity":
        return nn.Identity()
    if kind == "max_pool":
        sizes = op["kernel"], op["stride"], op["padding"]
        return nn.MaxPool2d(*sizes, ceil_mode=_is_open(op))
    if kind == "concat":
        return Concat()
    if kind == "cut":
        return Cut(op["out_channels"])
    if kind == "avg_pool":
        sizes = op["kernel"], op["stride"], op["padding"]
        return nn.AvgPool2d(*sizes, ceil_mode=_is_open(op), count_include_pad=False)
    if kind == "linear":
        module: nn.Module = nn.Linear(op["in_channels"], op["out_channels"])
    elif kind == "norm":
        module = Norm(op, bn_eps)
    elif kind == "conv":
        module = Convolution(op, bn_eps)
    elif kind in ("sep_conv", "dil_conv"):
        module = Separable(op, bn_eps)
    elif kind == "factorized":
        module = FactorizedReduction(op, bn_eps)
    else:
        module = Block(op, bn_eps)
    return module.apply(_initialise)


def build(definition: dict[str, Any]) -> nn.Module:
    """Builds the network of a definition: a graph, or a chain (`plain_net.Network`)."""
    form = GraphNetwork if definition["form"] == "graph" else Network
    return form(definition)
