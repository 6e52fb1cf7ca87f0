"""Shared code for TensorRT and TensorRT for RTX: builds, runs and times engines."""

import os
import re

import bench_cuda
import numpy


def providers():
    """The providers that a plan can name."""
    return [f"cuda:0 ({bench_cuda.Cuda(0).name})"]


class EngineRunner:
    """Builds an engine per model, stores it next to the model, and runs it on one GPU.

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

    def load(self, path):
        """A function that runs the model once, on random inputs, and returns its nanoseconds."""
        execution = self._execution(path)
        execution.bind(self._batch)
        for _, address, shape, kind in execution.inputs:
            self._cuda.write(address, self._random.standard_normal(shape).astype(kind))
        return lambda: self._cuda.timed(execution.enqueue)

    def open(self, path):
        """A function from inputs [batch, C, H, W] to the model's first output, both float32."""
        return self._execution(path)

    def _execution(self, path):
        """An engine file itself, or the engine of an ONNX model, stored next to it."""
        if path.suffix == ".engine":
            return Execution(self.trt, self._logger, path, self._cuda)
        stamp = re.sub(r"[^A-Za-z0-9.]+", "-", f"{self.version}-{self.accelerator}")
        cached = path.with_name(f"{path.name}.{self.trt.__name__}-{stamp}.engine")
        if not cached.exists():
            temporary = cached.with_suffix(".tmp")
            batches = [self._batch] * 3
            temporary.write_bytes(build_engine(self.trt, self._logger, path, batches))
            os.replace(temporary, cached)
        return Execution(self.trt, self._logger, cached, self._cuda)


class Execution:
    """An engine on the GPU, with buffers for one batch size at a time."""

    def __init__(self, trt, logger, path, cuda):
        self._trt, self._cuda = trt, cuda
        self._runtime = trt.Runtime(logger)  # must outlive its engine
        self._engine = self._runtime.deserialize_cuda_engine(path.read_bytes())
        if self._engine is None:
            raise RuntimeError(
                f"{path.name} cannot be loaded; delete it, and it will be built again"
            )
        self._context = self._engine.create_execution_context()
        self._bound = {}
        self.inputs = self.outputs = ()

    def bind(self, batch):
        """Sets shapes and addresses; `inputs`, `outputs` become (name, address, shape, kind)."""
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        kinds = {n: self._trt.nptype(self._engine.get_tensor_dtype(n)) for n in names}
        of_input = self._trt.TensorIOMode.INPUT
        given = [n for n in names if self._engine.get_tensor_mode(n) == of_input]
        for name in given:
            shape = [batch, *list(self._engine.get_tensor_shape(name))[1:]]
            if not self._context.set_input_shape(name, shape):
                raise RuntimeError(f"the engine was not built for batch {batch}")
        if batch not in self._bound:
            arrays = {
                n: numpy.zeros(list(self._context.get_tensor_shape(n)), kinds[n]) for n in names
            }
            self._bound[batch] = {n: (self._cuda.allocate(a), a.shape) for n, a in arrays.items()}
        bound = self._bound[batch]
        for name, (address, _) in bound.items():
            self._context.set_tensor_address(name, address)
        tensors = [(n, *bound[n], kinds[n]) for n in names]
        self.inputs = [t for t in tensors if t[0] in given]
        self.outputs = [t for t in tensors if t[0] not in given]

    def enqueue(self):
        """Adds one run to the stream."""
        if not self._context.execute_async_v3(self._cuda.stream.value):
            raise RuntimeError("the engine did not run")

    def __call__(self, x):
        """The first output, float32, for the only input x: [n, ...]."""
        self.bind(len(x))
        ((_, address, shape, kind),) = self.inputs
        if x.shape != tuple(shape):
            raise ValueError(f"inputs {list(x.shape)} for an engine that takes {list(shape)}")
        self._cuda.write(address, x.astype(kind))
        self.enqueue()
        _, address, shape, kind = self.outputs[0]
        return self._cuda.read(address, shape, kind).astype(numpy.float32)


def build_engine(trt, logger, path, batches, **options):
    """A serialised engine of an ONNX model, in the precision of its weights; see `build`."""
    return build(trt, parse(trt, logger, path), batches, **options)


def parse(trt, logger, path):
    """Builder, parser, network of an ONNX file; all three must live until the engine is built."""
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(path.read_bytes()):
        errors = "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
        raise ValueError(f"cannot be parsed: {errors}")
    return builder, parser, network


def build(trt, parsed, batches, target=None, with_tf32=True, cache=None):
    """A serialised engine from the result of `parse`, for batches [least, usual, most].

    target: a compute capability, such as `trt.ComputeCapability.SM89`, to build for another GPU
        (TensorRT for RTX only).
    with_tf32: whether float32 products may use TF32 (19 bits).
    cache: file with timings of earlier builds; read if valid, and written.
    """
    builder, _, network = parsed
    config = builder.create_builder_config()
    if target is not None:
        config.num_compute_capabilities = 1
        config.set_compute_capability(target, 0)
    if not with_tf32:
        config.clear_flag(trt.BuilderFlag.TF32)
    if cache is not None:
        use_timing_cache(config, cache.read_bytes() if cache.exists() else b"")
    profile = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        value = network.get_input(index)
        first, *shape = list(value.shape)
        if first == -1:
            profile.set_shape(value.name, *[[batch, *shape] for batch in batches])
        elif set(batches) != {first}:
            raise ValueError(f"the model's batch is {first}, not {sorted(set(batches))}")
    config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise RuntimeError("the engine could not be built (see the log above)")
    timings = None if cache is None else config.get_timing_cache()
    if timings is not None:
        cache.write_bytes(bytes(timings.serialize()))
    return bytes(engine)


def use_timing_cache(config, data):
    """Starts from the timings of an earlier build, unless they are from another version."""
    held = config.create_timing_cache(data)
    if held is None or not config.set_timing_cache(held, ignore_mismatch=False):
        config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)
