"""ONNX Runtime, any execution provider by its full name."""

import os

import numpy

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read when ONNX Runtime is imported
import onnxruntime

getattr(onnxruntime, "disable_telemetry_events", int)()  # for builds before 1.32

INSTALL = "python -m pip install numpy onnxruntime"
KINDS = {
    "tensor(float)": numpy.float32,
    "tensor(float16)": numpy.float16,
    "tensor(uint8)": numpy.uint8,
    "tensor(int8)": numpy.int8,
    "tensor(int64)": numpy.int64,
}


def providers():
    """The providers that a plan can name."""
    return onnxruntime.get_available_providers()


class Runner:
    """Loads models into sessions that use one provider and a fixed number of threads."""

    version = onnxruntime.__version__
    accelerator = None

    def __init__(self, provider, threads, batch, precision):
        if provider not in providers():
            # onnxruntime itself would only warn and use the CPU
            raise ValueError(f"this onnxruntime has no {provider}; it has {', '.join(providers())}")
        onnxruntime.set_default_logger_severity(3)
        self.provider, self.threads, self.batch = provider, threads, batch
        self.works_on_caller = provider == "CPUExecutionProvider"
        self.is_on_cpu = not provider.startswith(("CUDA", "Tensorrt", "NvTensorRT", "ROCM", "Dml"))
        self._random = numpy.random.RandomState(0)

    def load(self, path):
        """A function without arguments that runs the model once, on random inputs."""
        session = self._session(path)
        feed = {value.name: self._array(value) for value in session.get_inputs()}
        names = [value.name for value in session.get_outputs()]

        def once():
            session.run(names, feed)

        return once

    def open(self, path):
        """A function from inputs [batch, C, H, W] to the model's first output, both float32."""
        session = self._session(path)
        (value,) = session.get_inputs()

        def predict(x):
            found = session.run(None, {value.name: x.astype(KINDS[value.type])})[0]
            return numpy.asarray(found, dtype=numpy.float32)

        return predict

    def _session(self, path):
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # errors are raised; the log has names, unescaped
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_free_dimension_override_by_name("batch", self.batch)
        session = onnxruntime.InferenceSession(str(path), options, providers=[self.provider])
        if self.provider not in session.get_providers():
            raise RuntimeError(f"{self.provider} failed to start (see the log above)")
        return session

    def _array(self, value):
        """Random values of an input's type and shape: normal, or uniform over an integer type.

        Of int64, zeros: they are indices into a table whose length is not known.
        """
        batch, *shape = value.shape
        if value.type not in KINDS or not all(isinstance(size, int) for size in shape):
            raise ValueError(
                f"input {value.name!r}: cannot generate a random {value.type} {value.shape}"
            )
        if isinstance(batch, int) and batch != self.batch:
            raise ValueError(f"the model's batch is {batch}, the plan's {self.batch}")
        kind, shape = KINDS[value.type], [self.batch, *shape]
        if kind is numpy.int64:
            return numpy.zeros(shape, kind)
        if issubclass(kind, numpy.integer):
            bounds = numpy.iinfo(kind)
            return self._random.randint(bounds.min, bounds.max + 1, shape).astype(kind)
        return self._random.standard_normal(shape).astype(kind)
