"""TensorRT engines on an NVIDIA GPU, timed by CUDA events."""

import bench_tensorrt
import tensorrt

INSTALL = "python -m pip install numpy tensorrt"
providers = bench_tensorrt.providers


class Runner(bench_tensorrt.EngineRunner):
    """See `EngineRunner`."""

    trt, version = tensorrt, tensorrt.__version__
