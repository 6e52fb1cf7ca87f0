"""An `openvino` that is imitated: a graph is the ONNX model, which ONNX Runtime runs.

It follows the API as far as hwnas and the kit use it. The .xml lists the constants' types and the
quantisations, the .bin is the ONNX model. The real package has tests of its own, where it is.
"""

from __future__ import annotations

import sys
from pathlib import Path

OPENVINO = """
import numpy, onnx, onnxruntime
from pathlib import Path

__version__ = "0.0-imitation"


class Dimension:
    def __init__(self, size): self.size = size
    @property
    def is_dynamic(self): return self.size is None
    def get_length(self): return self.size


class Model:
    def __init__(self, data):
        self.data, proto = data, onnx.load_from_string(data)
        self.operators = [node.op_type for node in proto.graph.node]
        self.inputs = [self]
        dims = proto.graph.input[0].type.tensor_type.shape.dim
        self.partial_shape = [Dimension(d.dim_value or None) for d in dims]
        self.facts = {}

    def set_rt_info(self, value, path): self.facts[tuple(path)] = value

    def get_ordered_ops(self): return []
    def reshape(self, shapes): self.partial_shape = shapes[self]
    def __hash__(self): return id(self)


class Compiled:
    def __init__(self, model):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(model.data, options)
        self.inputs = self.session.get_inputs()

    def create_infer_request(self): return Request(self)

    def __call__(self, x):
        (value,) = self.inputs
        kind = numpy.float16 if value.type == "tensor(float16)" else numpy.float32
        return self.session.run(None, {value.name: x.astype(kind)})


class Request:
    def __init__(self, compiled):
        self.compiled = compiled
        (value,) = compiled.inputs
        kind = numpy.float16 if value.type == "tensor(float16)" else numpy.float32
        shape = [n if isinstance(n, int) else 1 for n in value.shape]
        self.data = numpy.zeros(shape, kind)

    def get_tensor(self, value): return self
    def infer(self, share_outputs): return self.compiled(self.data)


def convert_model(path): return Model(Path(path).read_bytes())


def save_model(model, path, compress_to_fp16):
    kind = "f16" if compress_to_fp16 else "f32"
    layers = [f'<layer type="Const"><data element_type="{kind}"/></layer>']
    layers += ['<layer type="FakeQuantize"/>'] * model.operators.count("DequantizeLinear")
    Path(path).write_text(f"<net><layers>{''.join(layers)}</layers></net>")
    Path(path).with_suffix(".bin").write_bytes(model.data)


class Core:
    available_devices = ["CPU"]

    def read_model(self, model, weights=None):
        path = Path(str(model)) if weights is None else None
        if path is not None and path.suffix == ".xml":
            path = path.with_suffix(".bin")
        return Model(weights if path is None else path.read_bytes())

    def compile_model(self, model, device, settings):
        assert device == "CPU" and settings["INFERENCE_PRECISION_HINT"] in ("f32", "f16")
        return Compiled(model)
"""


def imitated_openvino(folder: Path) -> Path:
    """A folder for `sys.path` with the imitation."""
    folder.mkdir(exist_ok=True)
    (folder / "openvino.py").write_text(OPENVINO)
    return folder


def forget_modules(folder: Path) -> None:
    """Removes imported modules of `folder`, so that later tests import the real ones, if any."""
    for name, module in list(sys.modules.items()):
        file = vars(module).get("__file__") if hasattr(module, "__dict__") else None
        if isinstance(file, str) and Path(file).is_relative_to(folder):
            del sys.modules[name]
