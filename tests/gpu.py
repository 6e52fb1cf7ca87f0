"""A GPU that is imitated: a CUDA runtime in C, whose memory is the host's.

And a `tensorrt` that follows the API as far as the kit uses it: an engine is the ONNX model, which
ONNX Runtime runs on the buffers at the addresses that were set. Every call of the builder is
recorded. What this proves is our side: which calls, in which order, with which arguments; the real
TensorRT for RTX, without a GPU, has tests of its own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

EVENT_GAP_NS = 250_000
LIBRARY = """
#include <stdlib.h>
#include <string.h>
static int clock_tick = 0;
int cudaGetDeviceCount(int *n) { *n = 1; return getenv("NO_GPU") ? 35 : 0; }
const char *cudaGetErrorString(int status) { return status == 35 ? "no driver" : "bad"; }
int cudaSetDevice(int index) { return index != 0; }
int cudaStreamCreate(void **stream) { *stream = malloc(8); return 0; }
int cudaStreamSynchronize(void *stream) { return !stream; }
int cudaEventCreate(void **event) { *event = calloc(1, sizeof(int)); return 0; }
int cudaEventRecord(void *event, void *stream) { *(int *)event = clock_tick++; return !stream; }
int cudaEventSynchronize(void *event) { return !event; }
int cudaEventElapsedTime(float *ms, void *a, void *b) {
  *ms = 0.25f * (*(int *)b - *(int *)a);
  return 0;
}
int cudaMalloc(void **address, size_t size) { *address = malloc(size); return 0; }
int cudaMemcpy(void *to, const void *from, size_t size, int kind) {
  if (kind != 1 && kind != 2) return 1;
  memcpy(to, from, size);
  return 0;
}
int cudaDeviceGetAttribute(int *value, int attribute, int index) {
  const char *capability = getenv("CAPABILITY") ? getenv("CAPABILITY") : "8.9";
  *value = attribute == 75 ? capability[0] - '0' : capability[2] - '0';
  return attribute != 75 && attribute != 76;
}
int cudaGetDeviceProperties(void *properties, int index) {
  strcpy((char *)properties, getenv("GPU_NAME") ? getenv("GPU_NAME") : "Imaginary 9000");
  return 0;
}
"""
TENSORRT = """
import ctypes, enum, json, math, os
import numpy, onnx, onnxruntime

__version__ = os.environ.get("TENSORRT_VERSION", "10.0")
KINDS = {1: numpy.float32, 10: numpy.float16}


def record(call, *facts):
    with open(os.environ["CALLS"], "a") as stream:
        stream.write(json.dumps([call, *facts]) + "\\n")


class TensorIOMode(enum.Enum):
    INPUT, OUTPUT = 1, 2


class NetworkDefinitionCreationFlag(enum.IntEnum):
    STRONGLY_TYPED = 1


class BuilderFlag(enum.IntEnum):
    TF32 = 7


class Logger:
    ERROR, WARNING = 1, 2

    def __init__(self, level): pass


def nptype(kind):
    return kind


class Tensor:
    def __init__(self, value):
        kind = value.type.tensor_type
        self.name, self.dtype = value.name, KINDS[kind.elem_type]
        self.shape = [size.dim_value or -1 for size in kind.shape.dim]


class Network:
    def fill(self, model):
        self.model = model
        self.inputs = [Tensor(value) for value in model.graph.input]
        self.outputs = [Tensor(value) for value in model.graph.output]
        self.num_inputs, self.num_outputs = len(self.inputs), len(self.outputs)

    def get_input(self, index): return self.inputs[index]
    def get_output(self, index): return self.outputs[index]


class OnnxParser:
    num_errors = 1

    def __init__(self, network, logger): self.network = network
    def get_error(self, index): return "it is broken"

    def parse(self, data):
        try:
            model = onnx.load_from_string(data)
            onnx.checker.check_model(model)
        except Exception:
            return False
        self.network.fill(model)
        return True


class Profile:
    def __init__(self): self.shapes = {}

    def set_shape(self, name, least, usual, most):
        record("profile", name, least, usual, most)
        self.shapes[name] = [least[0], most[0]]


class Cache:
    def __init__(self, data): self.data = data
    def serialize(self): return self.data + b"+timings"


class Config:
    profile = cache = None

    def clear_flag(self, flag): record("clear_flag", flag.name)

    def create_timing_cache(self, data):
        record("timing_cache", len(data))
        return Cache(data)

    def set_timing_cache(self, cache, ignore_mismatch):
        assert not ignore_mismatch
        self.cache = cache
        return not cache.data.startswith(b"other version")

    def get_timing_cache(self): return self.cache
    def add_optimization_profile(self, profile): self.profile = profile


class Builder:
    def __init__(self, logger): pass

    def create_network(self, flags):
        assert flags == 2
        return Network()

    def create_builder_config(self): return Config()
    def create_optimization_profile(self): return Profile()

    def build_serialized_network(self, network, config):
        record("build", os.environ.get("BUILD_FAILS", ""))
        if os.environ.get("BUILD_FAILS"):
            return None
        (tensor,) = network.inputs
        batches = config.profile.shapes.get(tensor.name) or tensor.shape[:1] * 2
        return json.dumps(batches).encode() + b"|" + network.model.SerializeToString()


class Runtime:
    def __init__(self, logger): pass

    def deserialize_cuda_engine(self, data):
        head, bar, model = data.partition(b"|")
        return Engine(json.loads(head), model) if bar else None


class Engine:
    def __init__(self, batches, model):
        self.batches, self.network, self.model = batches, Network(), model
        self.network.fill(onnx.load_from_string(model))
        self.tensors = {t.name: t for t in [*self.network.inputs, *self.network.outputs]}
        self.num_io_tensors = len(self.tensors)

    def create_execution_context(self): return Context(self)
    def get_tensor_name(self, index): return list(self.tensors)[index]
    def get_tensor_shape(self, name): return self.tensors[name].shape
    def get_tensor_dtype(self, name): return self.tensors[name].dtype

    def get_tensor_mode(self, name):
        return TensorIOMode(1 + (name in [t.name for t in self.network.outputs]))


class Context:
    def __init__(self, engine):
        self.engine, self.addresses, self.batch = engine, {}, None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(engine.model, options)

    def set_input_shape(self, name, shape):
        least, most = self.engine.batches
        if not least <= shape[0] <= most:
            return False
        self.batch = shape[0]
        return True

    def get_tensor_shape(self, name): return [self.batch, *self.engine.tensors[name].shape[1:]]
    def set_tensor_address(self, name, address): self.addresses[name] = address

    def memory(self, name):
        shape, kind = self.get_tensor_shape(name), self.engine.tensors[name].dtype
        size = math.prod(shape) * numpy.dtype(kind).itemsize
        buffer = (ctypes.c_char * size).from_address(self.addresses[name])
        return numpy.frombuffer(buffer, kind).reshape(shape)

    def execute_async_v3(self, stream):
        names = [t.name for t in self.engine.network.inputs]
        values = self.session.run(None, {name: self.memory(name) for name in names})
        for tensor, value in zip(self.engine.network.outputs, values):
            self.memory(tensor.name)[...] = value
        return bool(stream)
"""


def imitated_cuda(folder: Path) -> dict[str, str]:
    """An environment whose CUDA runtime is the imitation; skips the test without a C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler for the imitation of the CUDA runtime")
    source = folder / "cudart.c"
    source.write_text(LIBRARY)
    library = folder / "libcudart.so.13"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    return {**os.environ, "LD_LIBRARY_PATH": str(folder), "PYTHONPATH": str(folder)}


def imitated_tensorrt(folder: Path) -> dict[str, str]:
    """The same with the imitation of `tensorrt`; its calls are recorded in `folder / "calls"`."""
    environment = imitated_cuda(folder)
    (folder / "tensorrt.py").write_text(TENSORRT)
    return {**environment, "CALLS": str(folder / "calls")}
