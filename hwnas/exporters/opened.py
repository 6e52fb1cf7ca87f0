"""A deployed model, opened in its runtime on this host."""

from __future__ import annotations

from pathlib import Path

from hwnas.core.env import onnx_runtime
from hwnas.core.errors import UserError
from hwnas.interfaces import Images, OpenModel

__all__ = ["CannotRunHere", "onnxruntime_model"]


class CannotRunHere(UserError):
    """This host lacks the runtime or hardware of the format; the file may be valid."""


def onnxruntime_model(path: Path, *, threads: int = 1) -> OpenModel:
    """Opens an .onnx or .ort file in ONNX Runtime on the CPU.

    Raises:
        UserError: the file does not load.
    """
    onnxruntime = onnx_runtime()

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # ONNX Runtime has no public base class of its errors
        raise UserError("ONNX Runtime rejects the file", found=error, where=path) from error
    (tensor,) = session.get_inputs()
    batch = tensor.shape[0] if isinstance(tensor.shape[0], int) else None

    def run(x: Images) -> Images:
        found: Images = session.run(None, {tensor.name: x})[0]
        return found

    return OpenModel(run, f"onnxruntime {onnxruntime.__version__}", batch)
