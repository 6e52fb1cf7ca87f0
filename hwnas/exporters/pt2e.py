"""Rounds exported torch programs to 8 bits (PT2E) so that XNNPACK runs them, for ExecuTorch."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from hwnas.exporters.mixed import saving
from hwnas.interfaces import Images

__all__ = ["State", "logits", "quantized", "savings"]

TRANSPOSED = "aten.conv_transpose2d.input"
LINEAR = "aten.linear.default"
LAYERS = (
    *(f"aten.{kind}.{name}" for kind in ("conv1d", "conv2d") for name in ("default", "padding")),
    LINEAR,
    TRANSPOSED,
)
"""Operators that can be in 8 bits or in float. XNNPACK runs transposed convolutions of one group in
8 bits; their weights are rounded to the nearest values, because `weight_rounding` has no rule for
them.
"""
BATCH = 64
RELU, HARDTANH, RELU6 = (
    getattr(torch.ops.aten, name).default for name in ("relu", "hardtanh", "relu6")
)
CAT = torch.ops.aten.cat.default
MEANS = tuple(getattr(torch.ops.aten.mean, name) for name in ("default", "dim")) + (
    torch.ops.aten.adaptive_avg_pool2d.default,
)
MOST = 6.0  # of ReLU6
ALMOST_ZERO = 1e-30
ZERO_PADS = ((), ("constant",), ("constant", None), ("constant", 0.0))
ANNOTATION = "quantization_annotation"  # key of torchao
State = Mapping[str, torch.Tensor]
"""Maps the name of a parameter to its value."""


def savings(program: torch.export.ExportedProgram) -> dict[str, float]:
    """Maps the node name of every layer that can be in 8 bits to its `mixed.saving`."""
    found = {}
    for node in program.graph.nodes:
        if _is_layer(node):
            at = node.args[0] if str(node.target) == TRANSPOSED else node  # where weights multiply
            shape = at.meta["val"].shape
            maps = shape[1:-1] if str(node.target) == LINEAR else shape[2:]
            found[node.name] = saving(node.args[1].meta["val"].numel(), math.prod(maps))
    return found


def _is_layer(node: torch.fx.Node) -> bool:
    """Whether XNNPACK can run an operator with weights in 8 bits."""
    if str(node.target) == TRANSPOSED:
        return node.args[6:7] in ((), (1,))  # groups
    return str(node.target) in LAYERS


def quantized(
    program: torch.export.ExportedProgram,
    images: Images,
    rounded: State,
    only: Sequence[str] = (),
    but: Sequence[str] = (),
    *,
    at_once: int = BATCH,
) -> torch.nn.Module:
    """Rounds a program to 8 bits: the whole program, only some layers, or all except some.

    images: [n, C, H, W]. The ranges are the extremes over these images, in batches of `at_once`.
    rounded: new parameters for the layers in 8 bits.
    only, but: node names of layers.
    """
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e

    batches = torch.split(torch.from_numpy(images), at_once)
    for clips in (True, False):
        module = program.module()
        _unshare(module)
        layers = [
            node
            for node in module.graph.nodes
            if _is_layer(node) and (node.name in only if only else node.name not in but)
        ]
        for layer in layers:
            _set_parameters(module, layer, rounded)
        is_checked = clips and any(node.target in (HARDTANH, RELU6) for node in module.graph.nodes)
        exact = [module(batch) for batch in batches] if is_checked else []
        watched = _watched(module, layers, is_named=bool(only), but=but, clips=clips)
        seen = [watched(batch) for batch in batches]
        if all(map(_are_close, seen, exact)):
            break  # else the clipped range is also that of another value, which exceeds it
    found: torch.fx.GraphModule = convert_pt2e(watched)
    _keep_float_pads(found)
    return found


def _keep_float_pads(module: torch.fx.GraphModule) -> None:
    """Pads before layers in float by `ALMOST_ZERO`.

    ExecuTorch puts zero pads after a value in 8 bits into 8 bits themselves (`InsertPadQDQPass`),
    and does not lower a layer in float behind them.
    """
    for node in module.graph.nodes:
        is_zero = node.target == torch.ops.aten.pad.default and node.args[2:] in ZERO_PADS
        if is_zero and not any("quantize" in str(user.target) for user in node.users):
            node.args = (*node.args[:2], "constant", ALMOST_ZERO)
    module.recompile()


def _are_close(found: torch.Tensor, expected: torch.Tensor) -> bool:
    return torch.allclose(found, expected, rtol=0, atol=1e-3 * float(expected.abs().max()))


def _watched(
    module: torch.fx.GraphModule,
    layers: Sequence[torch.fx.Node],
    *,
    is_named: bool,
    but: Sequence[str],
    clips: bool,
) -> torch.fx.GraphModule:
    """The module with observers of all ranges.

    is_named: whether only `layers` are rounded; otherwise everything except layers `but`.
    clips: whether ReLU6 becomes ReLU with a clipped range.
    """
    from torchao.quantization.pt2e.quantize_pt2e import prepare_pt2e

    clipped = [_clipped(layer) for layer in layers] if clips else []
    module.recompile()
    related = {name for layer in layers for name in _names_around(layer)}
    kept = {*but, *_joins_beside(module.graph.nodes, but)}
    quantizer = _quantizer(
        lambda node: node.name in related if is_named else node.name not in kept,
        clipped={name for name in clipped if name},
    )
    watched: torch.fx.GraphModule = prepare_pt2e(module, quantizer)
    return watched


def _unshare(module: torch.fx.GraphModule) -> None:
    """Gives every layer its own copy of its weight and bias.

    XNNPACK's rule rounds a tensor for the first layer that reads it only, and ExecuTorch does not
    load the resulting file.
    """
    seen = set()
    for layer in filter(_is_layer, module.graph.nodes):
        for position, given in enumerate(layer.args[:3]):
            if getattr(given, "op", "") != "get_attr":
                continue
            if given in seen:
                name = f"{layer.name}_{position}"
                values = module.get_parameter(given.target).detach().clone()
                module.register_parameter(name, torch.nn.Parameter(values, requires_grad=False))
                with module.graph.inserting_before(layer):
                    own = module.graph.get_attr(name)
                own.meta = dict(given.meta)
                layer.update_arg(position, own)
            seen.add(given)
    module.recompile()


def _set_parameters(module: torch.nn.Module, layer: torch.fx.Node, values: State) -> None:
    """Replaces the weight and the bias of one layer, if `values` names them."""
    for given in layer.all_input_nodes:
        if given.op == "get_attr" and given.target in values:
            owner, _, name = str(given.target).rpartition(".")  # the program has the same tensors
            parameter = torch.nn.Parameter(values[str(given.target)], requires_grad=False)
            setattr(module.get_submodule(owner), name, parameter)


def _clipped(layer: torch.fx.Node) -> str:
    """Turns ReLU6 after a layer into ReLU, whose range `_quantizer` clips; returns its name, or "".

    XNNPACK runs layers with ReLU in one step. With ReLU6, the output of the layer would be rounded
    in its own range, which is several times as wide.
    """
    after = list(layer.users)
    if len(after) != 1 or (after[0].target, *after[0].args[1:]) not in (
        (HARDTANH, 0.0, MOST),
        (RELU6,),
    ):
        return ""
    (activation,) = after
    activation.target, activation.args = RELU, activation.args[:1]
    return str(activation.name)


def _names_around(layer: torch.fx.Node) -> Iterator[str]:
    """The layer, its weights, and the ReLU that it is run with."""
    yield layer.name
    yield from (one.name for one in layer.all_input_nodes if one.op == "get_attr")
    yield from (one.name for one in layer.users if one.target is RELU)


def _joins_beside(nodes: Iterable[torch.fx.Node], layers: Collection[str]) -> Iterator[str]:
    """Names of the `cat` operators that read a layer (also through an activation), or it them.

    In 8 bits they would round what a float layer computes or reads, in the range of all parts.
    """

    def source(value: torch.fx.Node) -> str:
        while value.target in (RELU, HARDTANH, RELU6):
            (value, *_) = value.all_input_nodes
        return value.name

    for join in (node for node in nodes if node.target is CAT):
        around = (*map(source, join.all_input_nodes), *(user.name for user in join.users))
        if any(name in layers for name in around):
            yield join.name


def _quantizer(admits: Callable[[torch.fx.Node], bool], *, clipped: Collection[str]) -> Any:
    """XNNPACK's rule for nodes that `admits`, with ranges from extremes, up to 6 for `clipped`.

    Means have a range of their own. In XNNPACK's rule they share that of their input, which is
    several times as wide.
    """
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e import MinMaxObserver, PerChannelMinMaxObserver
    from torchao.quantization.pt2e.quantizer import QuantizationAnnotation

    class UpToSix(MinMaxObserver):  # type: ignore[misc]  # torchao has no types
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = super().forward(x.clamp(max=MOST))
            return found

    class Quantizer(XNNPACKQuantizer):  # type: ignore[misc]  # nor has executorch
        def annotate(self, model: torch.fx.GraphModule) -> torch.fx.GraphModule:
            for node in model.graph.nodes:
                if node.target is CAT and not admits(node):  # XNNPACK's rule does not ask
                    node.meta[ANNOTATION] = QuantizationAnnotation(_annotated=True)
            model = super().annotate(model)
            for node in model.graph.nodes:
                found = node.meta.get(ANNOTATION)
                if node.target in MEANS and found is not None and found.output_qspec is not None:
                    found.output_qspec = extremes
                if node.name not in clipped:
                    continue
                if found is None or found.output_qspec is None:  # it stays in float
                    node.target = RELU6
                else:
                    found.output_qspec = replace(
                        found.output_qspec, observer_or_fake_quant_ctr=UpToSix
                    )
            return model

    rule = get_symmetric_quantization_config(is_per_channel=True)
    extremes = replace(rule.input_activation, observer_or_fake_quant_ctr=MinMaxObserver)
    # the rule's least scale of 2^-12 is too coarse for channels whose weights are below 0.03
    weight = replace(rule.weight, observer_or_fake_quant_ctr=PerChannelMinMaxObserver)
    rule = replace(rule, input_activation=extremes, output_activation=extremes, weight=weight)
    quantizer = Quantizer().set_global(rule)
    quantizer.set_filter_function(admits)
    return quantizer


def logits(net: torch.nn.Module, images: Images) -> Images:
    """Logits [n, classes] of a network."""
    parts = [net(part) for part in torch.split(torch.from_numpy(images), BATCH)]
    found: Images = torch.cat(parts).numpy()
    return found
