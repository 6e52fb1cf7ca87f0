"""OpenVINO, any of its devices by name (CPU, GPU, NPU)."""

import sys
import zipfile

import numpy

sys.modules.setdefault("openvino_telemetry", None)  # without this package, it reports nothing
import openvino  # noqa: E402

INSTALL = "python -m pip install numpy openvino"
PRECISIONS = {"fp32": "f32", "fp16": "f16", "int8": "f32"}  # int8 is defined in the model


def providers():
    """The providers that a plan can name."""
    return openvino.Core().available_devices


class Runner:
    """Compiles models for one device, one request at a time."""

    version = openvino.__version__.split("-")[0]
    works_on_caller = False

    def __init__(self, provider, threads, batch, precision):
        self._core = openvino.Core()
        if provider not in providers():
            raise ValueError(
                f"this openvino has no device {provider}; it has {', '.join(providers())}"
            )
        self.provider, self.batch = provider, batch
        self.is_on_cpu = provider == "CPU"
        self.accelerator = (
            None if self.is_on_cpu else self._core.get_property(provider, "FULL_DEVICE_NAME")
        )
        self._settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": "1",
            "INFERENCE_PRECISION_HINT": PRECISIONS[precision],
        }
        if self.is_on_cpu:
            self._settings["INFERENCE_NUM_THREADS"] = threads
            self._settings["ENABLE_CPU_PINNING"] = False  # the kit pins threads
        self._random = numpy.random.RandomState(0)

    def load(self, path):
        """A function without arguments that runs the model once, on random inputs."""
        compiled = self._compiled(path)
        request = compiled.create_infer_request()
        for value in compiled.inputs:
            tensor = request.get_tensor(value)
            kind = tensor.data.dtype
            if kind.kind in "iu":
                bounds = numpy.iinfo(kind)
                random = self._random.randint(bounds.min, bounds.max + 1, tensor.data.shape)
            else:
                random = self._random.standard_normal(tensor.data.shape)
            tensor.data[:] = random.astype(kind)

        def once():
            request.infer(share_outputs=True)

        return once

    def open(self, path):
        """A function from inputs [batch, C, H, W] to the model's first output, both float32."""
        compiled = self._compiled(path)
        return lambda x: numpy.array(compiled(x)[0], dtype=numpy.float32)

    def _compiled(self, path):
        model = self._read(path)
        for value in model.inputs:
            shape = value.partial_shape
            if shape[0].is_dynamic:
                shape[0] = self.batch
                model.reshape({value: shape})
            elif shape[0].get_length() != self.batch:
                raise ValueError(f"the model's batch is {shape[0]}, the plan's {self.batch}")
        return self._core.compile_model(model, self.provider, self._settings)

    def _read(self, path):
        """Reads an ONNX file, an .xml with its .bin, or a .zip with both, as in a plan."""
        if path.suffix != ".zip":
            return self._core.read_model(str(path))
        with zipfile.ZipFile(path) as archive:
            parts = {name.rpartition(".")[2]: archive.read(name) for name in archive.namelist()}
        return self._core.read_model(parts["xml"], parts["bin"])
