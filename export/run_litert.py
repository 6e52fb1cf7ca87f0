"""LiteRT (TensorFlow Lite): XNNPACK on the CPU; a GPU or NPU by its accelerators."""

import contextlib
import os
import sys
from importlib import metadata

import numpy
from ai_edge_litert.interpreter import Interpreter

INSTALL = "python -m pip install numpy ai-edge-litert"
OLDEST = (2, 3)  # oldest ai-edge-litert with the operator versions that hwnas writes
ACCELERATORS = {"gpu": "GPU", "npu": "NPU"}  # names in LiteRT; neither has been tested


def providers():
    """The providers that a plan can name; a missing GPU or NPU is an error at the start."""
    return ["cpu", *ACCELERATORS]


@contextlib.contextmanager
def without_notices():
    """Discards what LiteRT writes to stderr (its delegates); errors are exceptions."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # stderr is closed, or there is no /dev
            kept = os.dup(2)
            stack.callback(os.close, kept)
            nowhere = os.open(os.devnull, os.O_WRONLY)
            stack.callback(os.close, nowhere)
            sys.stderr.flush()
            os.dup2(nowhere, 2)
            stack.callback(os.dup2, kept, 2)
        yield


def open_interpreter(path, threads, batch=None):
    """An interpreter with allocated tensors; `batch` None: as in the file."""
    with without_notices():
        return _interpreter(path, threads, batch)


def _interpreter(path, threads, batch):
    interpreter = Interpreter(model_path=str(path), num_threads=threads)
    (tensor,) = interpreter.get_input_details()
    shape, signature = tensor["shape"], tensor["shape_signature"]
    if batch is not None and batch != shape[0]:
        if signature[0] != -1:
            raise ValueError(f"the model's batch is {shape[0]}, the plan's {batch}")
        interpreter.resize_tensor_input(tensor["index"], [batch, *shape[1:]])
    interpreter.allocate_tensors()
    return interpreter


def channels_last(x, shape):
    """Converts inputs [n, C, H, W] for a model with input shape [n, H, W, C]."""
    if tuple(x.transpose(0, 2, 3, 1).shape) != tuple(shape):
        sizes = [int(side) for side in shape]
        raise ValueError(f"inputs {list(x.shape)} for a model that takes {sizes} (NHWC)")
    return numpy.ascontiguousarray(x.transpose(0, 2, 3, 1), dtype=numpy.float32)


def fell_out(interpreter):
    """Operators that XNNPACK does not run, which use slower kernels; None: unknown."""
    if not hasattr(interpreter, "_get_ops_details"):
        return None
    writer = {}
    for op in interpreter._get_ops_details():  # a delegate comes after its operators
        writer.update((int(tensor), op) for tensor in op["outputs"])
    found, seen = [], set()
    waiting = [int(tensor["index"]) for tensor in interpreter.get_output_details()]
    while waiting:
        tensor = waiting.pop()
        if tensor in seen or tensor not in writer:
            continue
        seen.add(tensor)
        op = writer[tensor]
        if op["op_name"] != "DELEGATE" and op["index"] not in {o["index"] for o in found}:
            found.append(op)
        waiting += [int(source) for source in op["inputs"] if source >= 0]
    return sorted(op["op_name"] for op in found)


class Runner:
    """Loads .tflite files for one delegate and a fixed number of threads."""

    version = metadata.version("ai-edge-litert")
    works_on_caller = True

    def __init__(self, provider, threads, batch, precision):
        if tuple(int(part) for part in self.version.split(".")[:2]) < OLDEST:
            least = ".".join(map(str, OLDEST))
            raise ValueError(
                f"ai-edge-litert {self.version} is too old; fix: python -m pip install -U"
                f" 'ai-edge-litert>={least}'"
            )
        if provider not in providers():
            raise ValueError(f"litert has no {provider}; it has {', '.join(providers())}")
        self.provider, self.threads, self.batch = provider, threads, batch
        self.is_on_cpu = provider == "cpu"
        self.accelerator = None if self.is_on_cpu else f"LiteRT {provider}"
        self._random = numpy.random.RandomState(0)
        self._has_warned = False

    def load(self, path):
        """A function without arguments that runs the model once, on random inputs."""
        return self._on_cpu(path) if self.is_on_cpu else self._accelerated(path)

    def open(self, path):
        """A function from inputs [batch, C, H, W] to the model's first output, both float32."""
        if not self.is_on_cpu:
            return self._opened_accelerated(path)
        interpreter = open_interpreter(path, self.threads, self.batch)
        (given,), made = interpreter.get_input_details(), interpreter.get_output_details()[0]

        def predict(x):
            interpreter.set_tensor(given["index"], channels_last(x, given["shape"]))
            interpreter.invoke()
            return numpy.asarray(interpreter.get_tensor(made["index"]), dtype=numpy.float32)

        return predict

    def _on_cpu(self, path):
        interpreter = open_interpreter(path, self.threads, self.batch)
        for tensor in interpreter.get_input_details():
            interpreter.set_tensor(tensor["index"], self._array(tensor["dtype"], tensor["shape"]))
        if not self._has_warned and (names := fell_out(interpreter)):
            self._has_warned = True
            listed = ", ".join(sorted(set(names)))
            print(f"warning: {path.name}: not run by XNNPACK: {listed}", file=sys.stderr)
        return interpreter.invoke

    def _accelerated(self, path):
        model, given, made, sizes = self._compiled(path)
        given[0].write(self._array(numpy.float32, sizes[0]))
        n_made = int(numpy.prod(sizes[1]))

        def once():
            model.run_by_index(0, given, made)
            made[0].read(n_made, numpy.float32)

        return once

    def _opened_accelerated(self, path):
        model, given, made, sizes = self._compiled(path)
        n_made = int(numpy.prod(sizes[1]))

        def predict(x):
            given[0].write(channels_last(x, sizes[0]))
            model.run_by_index(0, given, made)
            return numpy.array(made[0].read(n_made, numpy.float32)).reshape(sizes[1])

        return predict

    def _compiled(self, path):
        """Compiles a model; an operator that the accelerator does not support is an error."""
        from ai_edge_litert.compiled_model import CompiledModel
        from ai_edge_litert.hardware_accelerator import HardwareAccelerator
        from ai_edge_litert.options import Options

        wanted = HardwareAccelerator[ACCELERATORS[self.provider]]
        model = CompiledModel.from_file(str(path), options=Options(hardware_accelerators=wanted))
        interpreter = open_interpreter(path, 1)
        details = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
        sizes = [tensor["shape"] for tensor in details]
        if sizes[0][0] != self.batch:
            raise ValueError(f"the model's batch is {sizes[0][0]}, the plan's {self.batch}")
        return model, model.create_input_buffers(0), model.create_output_buffers(0), sizes

    def _array(self, kind, shape):
        """Random values of an input's type and shape: normal, or uniform over an integer type."""
        if numpy.issubdtype(kind, numpy.integer):
            bounds = numpy.iinfo(kind)
            return self._random.randint(bounds.min, bounds.max + 1, shape).astype(kind)
        return self._random.standard_normal(shape).astype(kind)
