"""A deployed model, opened in its runtime on this host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwnas.core.env import onnx_runtime
from hwnas.core.errors import UserError
from hwnas.exporters.float_graph import STEP_INPUTS, STEP_OUTPUTS
from hwnas.interfaces import Images, OpenModel

__all__ = ["CannotRunHere", "onnxruntime_model"]


class CannotRunHere(UserError):
    """This host lacks the runtime or hardware of the format; the file may be valid."""


def onnxruntime_model(path: Path, *, threads: int = 1) -> OpenModel:
    """Opens an .onnx or .ort file in ONNX Runtime on the CPU.

    The file of a recurrent network computes one step. The opened model takes tokens [B, S, L] (S
    segments of L tokens) and returns the logits [B, words, L] of the last segment.

    Raises:
        UserError: the file does not load.
    """
    onnxruntime = onnx_runtime()

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # errors are raised; the log has names of the file, unescaped
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # ONNX Runtime has no public base class of its errors
        raise UserError(
            "ONNX Runtime rejects the file",
            found=error,
            where=path,
            fix="export the file again; a file of a newer version needs a newer onnxruntime",
        ) from error
    tensor, *states = session.get_inputs()
    batch = tensor.shape[0] if isinstance(tensor.shape[0], int) else None

    def run(x: Images) -> Images:
        if states:
            return _over_text(session, x, states[0].shape[-1])
        found: Images = session.run(None, {tensor.name: x})[0]
        return found

    return OpenModel(run, f"onnxruntime {onnxruntime.__version__}", batch)


def _over_text(session: Any, tokens: NDArray[Any], width: int) -> Images:
    """Logits [B, words, L] of the last segment of `tokens` [B, S, L].

    The state starts at zero and is passed from step to step.
    """
    token_name, state_name = STEP_INPUTS
    state = np.zeros((len(tokens), width), dtype=np.float32)
    steps = tokens.reshape(len(tokens), -1).T
    found = []
    for number, token in enumerate(steps, start=1):
        feed = {token_name: np.ascontiguousarray(token), state_name: state}
        logits, state = session.run(STEP_OUTPUTS, feed)
        if number > len(steps) - tokens.shape[-1]:
            found.append(logits)
    return np.stack(found, axis=2)
