"""Proof that an exported file computes what the network in torch computes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hwnas.core.errors import CheckFailed, UserError
from hwnas.core.records import STRICT

if TYPE_CHECKING:
    import torch

__all__ = ["BatchParity", "ParityReport", "check_parity", "compare"]

FP32_TOLERANCE = 1e-4


@dataclass(frozen=True)
class BatchParity:
    """Differences of logits at one batch size; `relative` = max difference / max |torch logit|."""

    __pydantic_config__: ClassVar[Any] = STRICT

    batch: int
    n_images: int
    max_abs_difference: float
    mean_abs_difference: float
    relative: float
    top1_agreement: float


@dataclass(frozen=True)
class ParityReport:
    """One exported file against torch, at several batch sizes."""

    __pydantic_config__: ClassVar[Any] = STRICT

    file: str
    runtime: str
    tolerance: float
    min_agreement: float
    batches: tuple[BatchParity, ...]

    @property
    def passed(self) -> bool:
        """Whether every batch size is within the tolerance and agrees on enough images."""
        return bool(self.batches) and all(
            b.relative <= self.tolerance and b.top1_agreement >= self.min_agreement
            for b in self.batches
        )


def check_parity(
    model: torch.nn.Module,
    onnx_path: Path,
    images: NDArray[np.float32],
    *,
    batches: Sequence[int] = (1, 8),
    tolerance: float = FP32_TOLERANCE,
    min_agreement: float = 1.0,
) -> ParityReport:
    """Run real inputs through `model` (in eval mode, on the CPU) and through ONNX Runtime.

    images: [n, C, H, W], normalised; per batch size the last, partial batch is left out. A file
    with a static batch is checked at that batch size only.

    Raises:
        UserError: the file does not load, or there are fewer images than the largest batch.
        CheckFailed: outputs are not finite, so there is nothing to compare.
    """
    import onnxruntime
    import torch

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(
            str(onnx_path), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # ONNX Runtime has no public base class of its errors
        raise UserError("ONNX Runtime rejects the file", found=error, where=onnx_path) from error
    (tensor,) = session.get_inputs()
    if isinstance(tensor.shape[0], int):
        batches = (tensor.shape[0],)
    if len(images) < max(batches):
        raise UserError("too few images", expected=f">= {max(batches)}", found=len(images))
    was_training = model.training
    model.eval()
    results = []
    try:
        for batch in batches:
            used = (
                images[: len(images) // batch * batch]
                .astype(np.float32)
                .reshape(-1, batch, *images.shape[1:])
            )
            with torch.inference_mode():
                expected = [model(torch.from_numpy(x)).numpy() for x in used]
            found = [session.run(None, {tensor.name: x})[0] for x in used]
            results.append(compare(np.concatenate(expected), np.concatenate(found), batch))
    finally:
        model.train(was_training)
    return ParityReport(
        file=Path(onnx_path).name,
        runtime=f"onnxruntime {onnxruntime.__version__}",
        tolerance=tolerance,
        min_agreement=min_agreement,
        batches=tuple(results),
    )


def compare(
    expected: NDArray[np.float32], found: NDArray[np.float32], batch: int = 1
) -> BatchParity:
    """Differences of two sets of logits [n, classes].

    Raises:
        CheckFailed: shapes differ, or a value is not finite.
    """
    if expected.shape != found.shape:
        raise CheckFailed("outputs differ in shape", expected=expected.shape, found=found.shape)
    if not (np.isfinite(expected).all() and np.isfinite(found).all()):
        raise CheckFailed("outputs are not finite", where=f"batch {batch}")
    difference = np.abs(expected.astype(np.float64) - found)
    scale = float(np.abs(expected).max())
    largest = float(difference.max())
    return BatchParity(
        batch=batch,
        n_images=len(expected),
        max_abs_difference=largest,
        mean_abs_difference=float(difference.mean()),
        relative=largest / scale if scale > 0 else (0.0 if largest == 0 else 1.0),
        top1_agreement=float((expected.argmax(1) == found.argmax(1)).mean()),
    )
