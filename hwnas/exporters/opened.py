"""A deployed model, ready to run on this host in the runtime it ships for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hwnas.core.errors import UserError

__all__ = ["CannotRunHere", "Images", "OpenModel", "onnxruntime_model"]

Images = NDArray[np.float32]


class CannotRunHere(UserError):
    """The format's runtime or its hardware is not on this host; the file may be sound."""


@dataclass(frozen=True)
class OpenModel:
    """`run`: images [B, C, H, W] -> logits [B, classes]; `batch` None = any B."""

    run: Callable[[Images], Images]
    runtime: str
    batch: int | None = None

    def logits(self, images: Images, batch: int = 64) -> Images:
        """Logits of all images, `batch` at a time; a fixed batch is filled up with the last one."""
        batch = self.batch or min(batch, len(images))
        found = []
        for start in range(0, len(images), batch):
            part = images[start : start + batch]
            missing = batch - len(part) if self.batch else 0
            filled = np.concatenate([part, np.repeat(part[-1:], missing, axis=0)])
            found.append(self.run(np.ascontiguousarray(filled))[: len(part)])
        return np.concatenate(found)


def onnxruntime_model(path: Path, *, threads: int = 1) -> OpenModel:
    """An .onnx or .ort file in ONNX Runtime on the CPU.

    Raises:
        UserError: the file does not load.
    """
    import onnxruntime

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
