"""TensorRT for RTX: engines on an NVIDIA RTX card, timed by CUDA events."""

import bench_tensorrt
import tensorrt_rtx

INSTALL = "python -m pip install numpy tensorrt-rtx-cu13"
providers = bench_tensorrt.providers


class Runner(bench_tensorrt.EngineRunner):
    """See `EngineRunner`."""

    trt, version = tensorrt_rtx, tensorrt_rtx.__version__
