"""PyTorch without a compiler: on the CPU, or on a GPU by CUDA graphs and events. Host only.

An ONNX model is run node by node, like its torch network with folded batch norm.
"""

import numpy
import onnx
import torch
from onnx import numpy_helper
from torch.nn import functional

INSTALL = "python -m pip install numpy onnx torch"


def providers():
    """The providers that a plan can name."""
    return ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]


class Runner:
    """Converts models to torch functions on one device."""

    version = torch.__version__
    works_on_caller = True

    def __init__(self, provider, threads, batch, precision):
        name = "cuda:0" if provider == "cuda" else provider
        if name not in providers():
            raise ValueError(f"this torch has no {provider}; it has {', '.join(providers())}")
        torch.set_num_threads(threads)
        self.is_on_cpu = name == "cpu"
        self.accelerator = None if self.is_on_cpu else torch.cuda.get_device_name(name)
        self._device, self._batch = torch.device(name), batch
        self._generator = torch.Generator().manual_seed(0)

    def load(self, path):
        """A function without arguments that runs the model once, on random inputs."""
        graph = onnx.load(str(path)).graph
        model = translate(graph, self._device)
        feed = {value.name: self._input(value) for value in graph.input}
        return on_cpu(model, feed) if self.is_on_cpu else on_gpu(model, feed, self._device)

    def open(self, path):
        """A function from inputs [batch, C, H, W] to the model's first output, both float32."""
        graph = onnx.load(str(path)).graph
        model = translate(graph, self._device)
        (value,) = graph.input
        kind = self._input(value).dtype

        def predict(x):
            given = torch.from_numpy(numpy.ascontiguousarray(x)).to(self._device, kind)
            return model({value.name: given})[0].to("cpu", torch.float32).numpy()

        return predict

    def _input(self, value):
        kind = value.type.tensor_type
        batch, *shape = [size.dim_value or size.dim_param for size in kind.shape.dim]
        if isinstance(batch, int) and batch != self._batch:
            raise ValueError(f"the model's batch is {batch}, the plan's {self._batch}")
        random = torch.randn([self._batch, *shape], generator=self._generator)
        is_half = kind.elem_type == onnx.TensorProto.FLOAT16
        return random.to(self._device, torch.float16 if is_half else torch.float32)


def translate(graph, device):
    """An ONNX graph as a function {input: tensor} -> [outputs]."""
    values = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    bounds = {name for node in graph.node if node.op_type == "Clip" for name in node.input[1:]}
    fixed = {n: v.tolist() for n, v in values.items() if n in bounds or v.dtype == numpy.int64}
    weights = {
        name: torch.from_numpy(value.copy()).to(device)
        for name, value in values.items()
        if name not in fixed
    }
    steps = [_step(node, fixed) for node in graph.node]
    outputs = [value.name for value in graph.output]

    @torch.inference_mode()
    def model(feed):
        known = {**weights, **feed}
        for function, inputs, output in steps:
            known[output] = function(*[known[name] for name in inputs])
        return [known[name] for name in outputs]

    return model


def on_cpu(model, feed):
    """A function that runs the model; the kit measures the time."""

    def once():
        model(feed)

    return once


def on_gpu(model, feed, device):
    """A CUDA graph of the model, without launch overhead; events measure the time."""
    stream = torch.cuda.Stream(device)
    with torch.cuda.stream(stream):
        for _ in range(3):  # libraries allocate and choose kernels before the capture
            model(feed)
        stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            kept = model(feed)
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def once(kept=kept):  # the graph writes into `kept`
        with torch.cuda.stream(stream):
            begin.record()
            graph.replay()
            end.record()
            end.synchronize()
        return round(begin.elapsed_time(end) * 1e6)

    return once


def _step(node, constants):
    """(function of tensors, their names, name of the result) of a node."""
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    fixed = [constants[name] for name in node.input if name in constants]
    inputs = [name for name in node.input if name not in constants]
    if node.op_type not in FORMS:
        raise ValueError(f"no torch form of the ONNX operator {node.op_type}")
    return FORMS[node.op_type](attributes, fixed), inputs, node.output[0]


def _conv(attributes, fixed):
    top, left, bottom, right = attributes.get("pads", [0] * 4)
    if (top, left) != (bottom, right):
        raise ValueError("padding is not symmetric")
    stride, groups = attributes.get("strides", 1), attributes.get("group", 1)
    dilation = attributes.get("dilations", 1)
    return lambda x, w, b=None: functional.conv2d(x, w, b, stride, (top, left), dilation, groups)


def _mean(attributes, fixed):
    keep = bool(attributes.get("keepdims", 1))
    return lambda x: x.mean(fixed[0], keepdim=keep)


def _reshape(attributes, fixed):
    return lambda x: x.reshape([x.shape[i] if n == 0 else n for i, n in enumerate(fixed[0])])


def _gemm(attributes, fixed):
    if not attributes.get("transB"):
        raise ValueError("Gemm without transB")
    return functional.linear


def _average(attributes, fixed):
    if any(attributes.get("pads", ())):
        raise ValueError("AveragePool with padding")
    kernel, stride = attributes["kernel_shape"], attributes.get("strides", 1)
    ceil = bool(attributes.get("ceil_mode", 0))
    return lambda x: functional.avg_pool2d(x, kernel, stride, ceil_mode=ceil)


def _transpose(attributes, fixed):
    return lambda x: x.permute(*attributes["perm"])


def _clip(attributes, fixed):
    return lambda x: functional.hardtanh(x, *fixed)


def _cast(attributes, fixed):
    kinds = {onnx.TensorProto.FLOAT: torch.float32, onnx.TensorProto.FLOAT16: torch.float16}
    return lambda x: x.to(kinds[attributes["to"]])


def _always(function):
    return lambda attributes, fixed: function


FORMS = {
    "Add": _always(torch.add),
    "AveragePool": _average,
    "Cast": _cast,
    "Clip": _clip,
    "Conv": _conv,
    "Gemm": _gemm,
    "HardSigmoid": _always(functional.hardsigmoid),
    "HardSwish": _always(functional.hardswish),
    "Mul": _always(torch.mul),
    "ReduceMean": _mean,
    "Relu": _always(functional.relu),
    "Reshape": _reshape,
    "Sigmoid": _always(torch.sigmoid),
    "Transpose": _transpose,
}
