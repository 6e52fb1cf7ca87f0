"""Quantisation-aware training: forward passes round as the 8-bit file does, gradients do not.

The network runs node by node (`torch.export`). Every value that the exporters `litert` and `int8`
convert to 8 bits is rounded: the image, the outputs of convolutions and linear layers after BN and
ReLU, and the outputs of sums, products and means. So hard-swish, for example, computes in float
between two roundings. Weights are rounded per output channel, scaled by their current largest
magnitude. BN scales whole channels, so folding it first, as exporters do, makes no difference.
Ranges of activations are the extremes over calibration images of the float network, not a moving
average. Rounding passes the gradient on unless the value was clipped (straight-through estimator,
1308.3432; the scheme is that of 1712.05877).

A depthwise window that `litert` splits into several rows is rounded once here, not per part.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from hwnas.interfaces import EightBits
from hwnas.nets.depthwise import depthwise_conv2d
from hwnas.training.features import with_features

__all__ = ["FakeQuantized", "Forward", "rounded_forward"]

Forward = Callable[[int, Tensor], tuple[Tensor, Tensor]]
"""Maps a step and its images [n, C, px, px] to features [n, F] and logits [n, classes]."""

FLOAT_SHARE = 0.25
"""Share of the steps that train in float first, while the learning rate increases."""
OBSERVE_EVERY = 25
"""Steps between two observations of the ranges, from the start of an epoch."""

aten = torch.ops.aten
CONV, LINEAR = aten.conv2d.default, aten.linear.default
HARD_SIGMOID, SILU = aten.hardsigmoid.default, aten.silu.default
NORM = aten._native_batch_norm_legit_no_training.default
FUSING = (CONV, LINEAR, operator.getitem, aten.add.Tensor, aten.mul.Tensor)
"""Operators that apply a ReLU themselves; `getitem` is the output of a BN."""
CLAMPING = (aten.relu.default, aten.hardtanh.default, aten.clamp.default)
KEEPING = (
    *(aten.view.default, aten.reshape.default, aten.permute.default, aten.sym_size.int),
    *(aten.constant_pad_nd.default, aten.clone.default, aten.dropout.default, NORM),
)
"""Operators whose output is not rounded: they move values, or are one half of a BN."""
LEVELS = 127
WEIGHT_LEVELS: dict[EightBits, int] = {"litert": LEVELS, "onnx": 64, "onnx symmetric": LEVELS}
OF_SIGMOID = (1 / 256, -LEVELS - 1)  # scale and zero point by the specification of TensorFlow


def rounded_forward(
    model: torch.nn.Module,
    calibration: Sequence[Tensor],
    rule: EightBits,
    *,
    steps_per_epoch: int,
    n_steps: int,
) -> Forward:
    """Returns a forward pass for training that rounds as an 8-bit file does, except in early steps.

    It depends only on the step and the weights, so a resumed training continues in the same way.

    Args:
        model: in training mode.
        calibration: batches of training images as inputs of the model, on its device.
        rule: the rounding rule.
        steps_per_epoch: steps of an epoch; training is resumed only between epochs.
        n_steps: steps of the whole training.
    """
    fake = FakeQuantized(model, calibration[0], rule)
    first = int(FLOAT_SHARE * n_steps)

    def forward(step: int, images: Tensor) -> tuple[Tensor, Tensor]:
        if step < first:
            return with_features(model, images)
        if step == first or step % steps_per_epoch % OBSERVE_EVERY == 0:
            fake.observe(calibration)
        return fake.with_features(images)

    return forward


class FakeQuantized(torch.fx.Interpreter):
    """Runs a network with values and weights rounded to 8 bits; shares its parameters.

    BN uses the statistics of the batch in training mode, and its running statistics in eval mode.

    Args:
        model: a static network.
        example: example images [n, C, px, px]; n may vary later.
        rule: the rounding rule.
    """

    def __init__(self, model: torch.nn.Module, example: Tensor, rule: EightBits) -> None:
        was_training = model.training
        shapes = ({0: torch.export.Dim("batch")},)
        with torch.no_grad():
            program = torch.export.export(
                model.eval(), (example[:1].repeat(2, 1, 1, 1),), dynamic_shapes=shapes
            )
        graph_module = program.run_decompositions({}).module()
        super().__init__(graph_module)
        model.train(was_training)
        self._network, self._rule = model, rule
        assert isinstance(graph_module, torch.fx.GraphModule)
        nodes = graph_module.graph.nodes
        self._rounded = {node.name for node in nodes if _is_rounded(node, rule)}
        self._ranges: dict[str, tuple[float, float]] = {}
        self._is_observing = False
        self._features: Tensor  # inputs of the last linear layer that ran

    def observe(self, batches: Sequence[Tensor]) -> None:
        """Sets the ranges to the extremes of the float network over images [n, C, px, px]."""
        self._ranges, self._is_observing = {}, True
        try:
            with torch.no_grad():
                for images in batches:
                    self.run(images)
        finally:
            self._is_observing = False

    def __call__(self, images: Tensor) -> Tensor:
        """Logits [n, classes] of images [n, C, px, px], as computed by the 8-bit file."""
        logits: Tensor = self.run(images)
        return logits

    def with_features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The inputs [n, F] of the classifier, and the logits."""
        logits: Tensor = self.run(images)
        return self._features, logits

    # --- torch.fx ---------------------------------------------------------------------------------

    def run_node(self, n: torch.fx.Node) -> Any:
        """Runs one operator, and rounds its output."""
        if n.target in (HARD_SIGMOID, SILU) and self._rule == "litert":
            found = self._in_two(n)
        else:
            found = super().run_node(n)
        return self._round(n.name, found) if n.name in self._rounded else found

    def _in_two(self, n: torch.fx.Node) -> Tensor:
        """Activations that LiteRT splits into two operators, with an 8-bit value between them."""
        x: Tensor = self.fetch_args_kwargs_from_env(n)[0][0]
        if n.target is HARD_SIGMOID:
            return self._round(f"{n.name}.relu6", F.relu6(x + 3)) / 6
        gate = torch.sigmoid(x)
        return x * (gate if self._is_observing else _rounded(gate, *OF_SIGMOID))

    def fetch_attr(self, target: str) -> Any:
        """Current parameters and statistics of the network."""
        try:
            return operator.attrgetter(target)(self._network)
        except AttributeError:  # a constant of the graph
            return super().fetch_attr(target)

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Runs an operator, with rounded weights if it has weights."""
        if target is CONV:
            return _convolved(args[0], self._weight(args[1]), *args[2:], **kwargs)
        if target is LINEAR:
            self._features = args[0]
            return F.linear(args[0], self._weight(args[1]), *args[2:], **kwargs)
        if target is NORM:
            x, weight, bias, mean, var, _, eps = args
            if self._network.training:
                mean = var = None
            return (F.batch_norm(x, mean, var, weight, bias, mean is None, 0.0, eps),)
        return super().call_function(target, args, kwargs)

    # --- rounding ---------------------------------------------------------------------------------

    def _round(self, name: str, x: Tensor) -> Tensor:
        if self._is_observing:
            low, high = self._ranges.get(name, (0.0, 0.0))  # every scheme represents 0 exactly
            self._ranges[name] = min(low, float(x.min())), max(high, float(x.max()))
            return x
        low, high = self._ranges[name]
        if self._rule == "onnx symmetric":
            scale = max(high, -low, 1e-6) / LEVELS
            return torch.fake_quantize_per_tensor_affine(x, scale, 0, -LEVELS, LEVELS)
        scale = max(high - low, 1e-6) / (2 * LEVELS + 1)
        zero = min(max(round(-LEVELS - 1 - low / scale), -LEVELS - 1), LEVELS)
        return _rounded(x, scale, zero)

    def _weight(self, weight: Tensor) -> Tensor:
        if self._is_observing:
            return weight
        levels = WEIGHT_LEVELS[self._rule]
        scale = weight.detach().abs().flatten(1).amax(1).clamp(min=1e-9) / levels
        zeros = torch.zeros_like(scale, dtype=torch.int32)
        return torch.fake_quantize_per_channel_affine(weight, scale, zeros, 0, -levels, levels)


def _rounded(x: Tensor, scale: float, zero: int) -> Tensor:
    return torch.fake_quantize_per_tensor_affine(x, scale, zero, -LEVELS - 1, LEVELS)


def _is_rounded(node: torch.fx.Node, rule: EightBits) -> bool:
    """Whether the exporters convert the output of a node to 8 bits, instead of a later node's."""
    if node.op == "placeholder":
        return True
    if node.op != "call_function" or node.target in KEEPING:
        return False
    readers = list(node.users)
    if len(readers) != 1:
        return True
    (reader,) = readers
    is_taken_in = reader.target is NORM and node.target is CONV
    is_clamped = reader.target in CLAMPING and node.target in FUSING
    is_shifted = (
        rule == "litert"
        and reader.target is HARD_SIGMOID
        and node.target in (CONV, LINEAR, operator.getitem)
    )
    return not (is_taken_in or is_clamped or is_shifted)


def _convolved(x: Tensor, weight: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """The same as `F.conv2d`; depthwise convolutions have the fast gradient of `nets.depthwise`."""
    names = ("bias", "stride", "padding", "dilation", "groups")
    given = dict(zip(names, args, strict=False)) | kwargs
    stride, padding = given.get("stride", [1, 1]), given.get("padding", [0, 0])
    is_plain = given.get("bias") is None and given.get("dilation", [1, 1]) == [1, 1]
    is_square = weight.shape[2] == weight.shape[3] and len({*stride}) == len({*padding}) == 1
    if is_plain and is_square and given.get("groups", 1) == x.shape[1] == weight.shape[0]:
        return depthwise_conv2d(x, weight, stride[0], padding[0])
    return F.conv2d(x, weight, **given)
