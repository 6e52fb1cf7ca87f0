"""Captures networks with torch.export; states errors of torch and of converters in few words."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwnas.core.errors import HwnasError, UserError, out_of_memory

if TYPE_CHECKING:
    import torch

__all__ = ["WITHOUT_BRANCH", "capture", "cause_text", "place_of", "quiet"]

WITHOUT_BRANCH = "replace the operator or the branch (for example by torch.where)"
"""Way out of a network that torch cannot trace."""
MOST_TEXT = 300  # characters of an error
LINE = re.compile(r'File "([^"]+)", line (\d+), in (?:forward|<lambda>)')


def capture(
    network: torch.nn.Module, example: torch.Tensor, dynamic_shapes: Any = None
) -> torch.export.ExportedProgram:
    """The program of a network that takes one tensor, from torch.export.

    Raises:
        UserError: torch.export cannot capture the network; names the line of its `forward`.
    """
    import torch

    try:
        with quiet():
            return torch.export.export(network, (example,), dynamic_shapes=dynamic_shapes)
    except (HwnasError, MemoryError):
        raise
    except Exception as error:  # torch raises dozens of unrelated classes
        if out_of_memory(error) is not None:
            raise
        any_batch = "" if dynamic_shapes is None else ", and any batch size"
        raise UserError(
            "torch.export cannot capture the network",
            expected="operators that torch.export can trace, no branches on the values of tensors"
            + any_batch,
            found=cause_text(error),
            where=place_of(error),
            fix=WITHOUT_BRANCH,
        ) from error


def cause_text(error: BaseException) -> str:
    """The class and the first line of the error from which `error` was raised."""
    cause = _root(error)
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()] or [""]
    text = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
    return f"{type(cause).__name__}: {text[:MOST_TEXT]}"


def place_of(error: BaseException) -> str:
    """`forward` of a network, with file and line if an error of torch names them."""
    lines = LINE.findall(str(_root(error)))
    file, number = lines[-1] if lines else ("", "")
    return "forward() of the network" + (f" ({Path(file).name}:{number})" if file else "")


def _root(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


_one_at_a_time = threading.RLock()  # standard streams and torch's tracing belong to the process


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppresses prints, logs and warnings of the exporters; their exceptions state the errors.

    Other threads wait, because streams, logging and the tracing of torch belong to the process.
    """
    with _one_at_a_time:
        before = logging.root.manager.disable
        logging.disable(max(before, logging.ERROR))
        try:
            with (
                warnings.catch_warnings(),
                contextlib.redirect_stdout(io.StringIO()),
                contextlib.redirect_stderr(io.StringIO()),
            ):
                warnings.simplefilter("ignore")
                yield
        finally:
            logging.disable(before)
