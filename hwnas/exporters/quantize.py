"""Static 8-bit quantisation of an fp32 graph by ONNX Runtime; some layers stay in float."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from hwnas.core.env import onnx_runtime
from hwnas.exporters.capture import quiet
from hwnas.exporters.mixed import LARGEST, Mixed, mixed, saving
from hwnas.interfaces import Images

if TYPE_CHECKING:
    import torch

__all__ = ["LEVELS", "on_grid", "quantized", "set_initializers"]

BATCH = 16
LEVELS = {False: 64, True: LARGEST}
"""Maps the setting `symmetric` to the largest integer of a weight."""
Weights = NDArray[np.float32]
REMOVABLE = ("Clip", "Relu")
IN_FLOAT = {"InstanceNormalization", "LayerNormalization"}
"""Without 8-bit kernels; the quantiser warns of their factors, and fails on those of maps."""


def quantized(
    proto: onnx.ModelProto,
    calibration: Images,
    judged: Images,
    *,
    method: str,
    symmetric: bool = False,
    target_agreement: float,
    max_float_layers: float,
    rounded: Mapping[str, Weights] | None = None,
) -> Mixed[onnx.ModelProto]:
    """Quantises `proto` to 8 bits, with ranges from `calibration` and some layers left in float.

    calibration, judged: images [n, C, H, W]; the top-1 agreement is measured on `judged`.
    symmetric: signed activations with zero point 0, and biases that stay in float. Otherwise
        activations are unsigned, and weights use -64 to 64 only: x86 processors without VNNI add
        two products of an unsigned and a signed byte in 16 bits, which saturates with 8-bit weights
        (docs/results.md, "Export").
    rounded: initializers of layers in 8 bits, see `on_grid`. They are only used if they bring the
        8-bit network closer to `proto` on `judged`.
    """
    graph = onnx.shape_inference.infer_shapes(proto)
    nearest = _Quantizer(graph, _ranges(graph, calibration, method), symmetric, {})
    ways = {"compensated": replace(nearest, rounded=rounded)} if rounded else {}
    return mixed(
        ways | {"nearest": nearest},
        _logits,
        _savings(graph.graph),
        judged,
        _logits(proto, judged),
        target_agreement=target_agreement,
        max_float_layers=max_float_layers,
    )


def on_grid(
    proto: onnx.ModelProto, model: torch.nn.Module, images: Images, *, levels: int
) -> dict[str, Weights]:
    """Weights and biases from `weight_rounding.grid_weights`, by the name of their initializer.

    proto: `float_graph` of `model`. A layer whose weights differ in `proto` is left out.
    """
    from hwnas.exporters.fold import folded
    from hwnas.exporters.weight_rounding import Layer, grid_weights

    rounded = grid_weights(model, images, levels=levels).state_dict()
    stored = {one.name: numpy_helper.to_array(one) for one in proto.graph.initializer}
    found: dict[str, Weights] = {}
    for layer, module in folded(model, images.shape[1:]).named_modules():
        if not isinstance(module, Layer):
            continue
        exact = {f"{layer}.{name}": value.numpy() for name, value in module.state_dict().items()}
        if all(_is_in(stored, name, value) for name, value in exact.items()):
            found |= {name: rounded[name].numpy() for name in exact}
    return found


def set_initializers(graph: onnx.GraphProto, values: Mapping[str, Weights]) -> None:
    """Replaces the values of initializers, by name; other names are ignored."""
    for one in graph.initializer:
        if one.name in values:
            one.CopyFrom(numpy_helper.from_array(values[one.name], one.name))


def _is_in(stored: Mapping[str, Weights], name: str, value: Weights) -> bool:
    return name in stored and np.array_equal(stored[name], value)


def _savings(graph: onnx.GraphProto) -> dict[str, float]:
    """`mixed.saving` of every layer with weights."""
    n_weights = {one.name: math.prod(one.dims) for one in graph.initializer}
    maps = {
        value.name: math.prod(axis.dim_value for axis in value.type.tensor_type.shape.dim[2:])
        for value in (*graph.value_info, *graph.output)
    }
    return {
        node.name: saving(n_weights[node.input[1]], maps[node.output[0]])
        for node in graph.node
        if node.op_type in ("Conv", "Gemm")
    }


@dataclass(frozen=True, eq=False)
class _Quantizer:
    """Quantises the whole graph, only some layers, or all except some.

    rounded: initializers of layers that are quantised, see `on_grid`.
    """

    graph: onnx.ModelProto
    ranges: Any
    symmetric: bool
    rounded: Mapping[str, Weights]

    def __call__(self, only: Sequence[str] = (), but: Sequence[str] = ()) -> onnx.ModelProto:
        from onnxruntime.quantization import QuantType
        from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

        copy = onnx.ModelProto()
        copy.CopyFrom(self.graph)
        self._round(copy.graph, {*only}, {*but})
        quantizer = QDQQuantizer(
            copy,
            True,  # per channel
            not self.symmetric,  # weights of 7 bits
            QuantType.QInt8,
            QuantType.QInt8 if self.symmetric else QuantType.QUInt8,
            self.ranges,
            list(only),
            self._excluded(but),
            _op_types(),
            {"ActivationSymmetric": True, "QuantizeBias": False} if self.symmetric else {},
        )
        with quiet():
            quantizer.quantize_model()
        quantizer.model.topological_sort()
        model: onnx.ModelProto = quantizer.model.model
        del model.graph.value_info[:]
        return model

    def _round(self, graph: onnx.GraphProto, only: set[str], but: set[str]) -> None:
        """Sets `rounded` in the layers that will be in 8 bits."""
        names = {
            name
            for node in graph.node
            if node.name not in but and (not only or node.name in only)
            for name in node.input
        }
        set_initializers(graph, {n: v for n, v in self.rounded.items() if n in names})

    def _excluded(self, layers: Sequence[str]) -> list[str]:
        """Float layers, the activation functions that they read, and the sums beside them.

        ONNX Runtime removes a Clip or Relu if the 8-bit range clips in the same way. It also does
        so if the only reader is a float layer, whose input would then not be clipped. A sum in 8
        bits would round what a float layer computes, or reads (`benchmarks/int8_agreement.py`).
        """
        if not layers:
            return []
        nodes = self.graph.graph.node
        read = {name for node in nodes if node.name in layers for name in node.input}
        feeding = [n.name for n in nodes if n.op_type in REMOVABLE and n.output[0] in read]
        return [*layers, *feeding, *_sums_beside(nodes, set(layers))]


def _sums_beside(nodes: Sequence[onnx.NodeProto], layers: set[str]) -> list[str]:
    """Names of the sums that read a layer (also through an activation) or that a layer reads."""
    by_output = {name: node for node in nodes for name in node.output}

    def source(value: str) -> str:
        """The node that computes a value, before its activation."""
        node = by_output.get(value)
        while node is not None and node.op_type in REMOVABLE:
            node = by_output.get(node.input[0])
        return "" if node is None else node.name

    read = {source(name) for node in nodes if node.name in layers for name in node.input}
    sums = [node for node in nodes if node.op_type == "Add" and node.name]
    return [
        one.name
        for one in sums
        if one.name in read or any(source(name) in layers for name in one.input)
    ]


def _op_types() -> list[str]:
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    return sorted({*QDQRegistry, *QLinearOpsRegistry} - IN_FLOAT)


def _ranges(graph: onnx.ModelProto, images: Images, method: str) -> Any:
    """Range of every tensor over the images."""
    from onnxruntime.quantization import CalibrationMethod
    from onnxruntime.quantization.calibrate import create_calibrator

    kinds = {
        "minmax": CalibrationMethod.MinMax,
        "percentile": CalibrationMethod.Percentile,
        "entropy": CalibrationMethod.Entropy,
    }
    with tempfile.TemporaryDirectory() as folder, quiet():
        source = Path(folder, "float.onnx")
        source.write_bytes(graph.SerializeToString())
        calibrator = create_calibrator(
            source,
            _op_types(),
            augmented_model_path=str(Path(folder, "augmented.onnx")),
            calibrate_method=kinds[method],
            providers=["CPUExecutionProvider"],
        )
        batch = _batch(graph)
        for start in range(0, len(images), batch):
            calibrator.collect_data(_Reader(_input(graph), images[start : start + batch]))
        return calibrator.compute_data()


class _Reader:
    """The calibration data reader of ONNX Runtime, with one batch."""

    def __init__(self, name: str, images: Images) -> None:
        self.feeds = [{name: images}]

    def get_next(self) -> dict[str, Images] | None:
        return self.feeds.pop() if self.feeds else None


def _input(model: onnx.ModelProto) -> str:
    return str(model.graph.input[0].name)


def _batch(model: onnx.ModelProto) -> int:
    dim = model.graph.input[0].type.tensor_type.shape.dim[0]
    return int(dim.dim_value) if dim.HasField("dim_value") else BATCH


def _logits(model: onnx.ModelProto, images: Images) -> NDArray[np.float32]:
    onnxruntime = onnx_runtime()

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4  # errors are raised
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    batch, name = _batch(model), _input(model)
    return np.concatenate(
        [
            session.run(None, {name: images[start : start + batch]})[0]
            for start in range(0, len(images), batch)
        ]
    )
