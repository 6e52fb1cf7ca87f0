"""What TensorRT and TensorRT for RTX share: ONNX models to engines, timed by CUDA events."""

import os
import re

import bench_cuda
import numpy


def providers():
    """What a plan may name as its provider."""
    return [f"cuda:0 ({bench_cuda.Cuda(0).name})"]


class EngineRunner:
    """Builds an engine per model, keeps it beside the model, and runs it on one GPU.

    A subclass sets `trt`, the module, and `version`.
    """

    is_on_cpu = False

    def __init__(self, provider, threads, batch, precision):
        match = re.fullmatch(r"cuda(?::(\d+))?", provider)
        if match is None:
            raise ValueError(f"the provider is cuda or cuda:0, cuda:1, ..., found {provider!r}")
        self._cuda = bench_cuda.Cuda(int(match.group(1) or 0))
        self.accelerator = self._cuda.name
        self._batch, self._random = batch, numpy.random.RandomState(0)
        self._logger = self.trt.Logger(self.trt.Logger.ERROR)
        self._runtime = self.trt.Runtime(self._logger)

    def load(self, path):
        """A function that runs the model once, on random inputs, and returns its nanoseconds."""
        stamp = re.sub(r"[^A-Za-z0-9.]+", "-", f"{self.version}-{self.accelerator}")
        cached = path.with_name(f"{path.name}.{self.trt.__name__}-{stamp}.engine")
        if not cached.exists():
            temporary = cached.with_suffix(".tmp")
            temporary.write_bytes(build_engine(self.trt, self._logger, path, self._batch))
            os.replace(temporary, cached)
        engine = self._runtime.deserialize_cuda_engine(cached.read_bytes())
        if engine is None:
            raise RuntimeError(f"{cached.name} does not load; delete it to have it built again")
        context = engine.create_execution_context()
        for index in range(engine.num_io_tensors):
            name = engine.get_tensor_name(index)
            kind = self.trt.nptype(engine.get_tensor_dtype(name))
            if engine.get_tensor_mode(name) == self.trt.TensorIOMode.INPUT:
                shape = [self._batch, *list(engine.get_tensor_shape(name))[1:]]
                context.set_input_shape(name, shape)
                array = self._random.standard_normal(shape).astype(kind)
            else:
                array = numpy.zeros(list(context.get_tensor_shape(name)), kind)
            context.set_tensor_address(name, self._cuda.allocate(array))

        def enqueue():
            if not context.execute_async_v3(self._cuda.stream.value):
                raise RuntimeError("the engine did not run")

        return lambda: self._cuda.timed(enqueue)


def build_engine(trt, logger, path, batch, target=None):
    """A serialised engine of an ONNX model, in the precision of its weights.

    target: a compute capability, such as `trt.ComputeCapability.SM89`, to build for a GPU that is
    not here (TensorRT for RTX only).
    """
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(path.read_bytes()):
        errors = "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
        raise ValueError(f"cannot be parsed: {errors}")
    config = builder.create_builder_config()
    if target is not None:
        config.num_compute_capabilities = 1
        config.set_compute_capability(target, 0)
    profile = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        value = network.get_input(index)
        first, *shape = list(value.shape)
        if first not in (-1, batch):
            raise ValueError(f"the model's batch is {first}, the plan's {batch}")
        if first == -1:
            profile.set_shape(value.name, *[[batch, *shape]] * 3)
    config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise RuntimeError("the engine could not be built (see the log above)")
    return bytes(engine)
