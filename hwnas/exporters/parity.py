"""Compares an exported file with the torch network."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from hwnas.core.errors import CheckFailed, UserError
from hwnas.core.records import STRICT, Count, NotNegative, Positive, Share
from hwnas.core.stats import agrees
from hwnas.exporters.logit_scale import logit_scale, relative
from hwnas.exporters.opened import onnxruntime_model
from hwnas.interfaces import MOST_TOLERANCE, ModelFile, OpenModel

if TYPE_CHECKING:
    import torch

__all__ = [
    "BatchParity",
    "ParityReport",
    "check_parity",
    "compare",
    "compare_batches",
    "is_kept",
    "promised",
    "tolerance_text",
    "torch_logits",
    "torch_rounding",
]

FP32_TOLERANCE = 1e-4
TIE = 2e-5  # relative to the largest logit; fp32 rounding can swap such classes
ROUNDINGS = 4  # of torch: two float32 runtimes differ by the sum of their roundings
N_AT_ONCE = 32
N_ROUNDED = 64  # images on which torch's rounding is measured


@dataclass(frozen=True)
class BatchParity:
    """Differences between the logits of an exported file and of torch, at one batch size.

    n_images: number of distinct images.
    relative: largest difference / largest magnitude of a torch logit.
    top1_agreement: share of images to which file and torch assign the same class, or two classes
        whose torch logits are tied (`TIE`).
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    batch: Annotated[int, Field(ge=1)]
    n_images: Count
    max_abs_difference: NotNegative
    mean_abs_difference: NotNegative
    relative: NotNegative
    top1_agreement: Share

    def agrees(self, least: float) -> bool:
        """Whether the classes agree at a rate of at least `least`, see `core.stats.agrees`."""
        return agrees(round(self.top1_agreement * self.n_images), self.n_images, least)


@dataclass(frozen=True)
class ParityReport:
    """Comparison of one exported file with torch, at several batch sizes."""

    __pydantic_config__: ClassVar[Any] = STRICT

    file: str
    runtime: str
    tolerance: Positive
    min_agreement: Share
    batches: tuple[BatchParity, ...]
    torch_rounding: NotNegative | None = None

    @property
    def worst(self) -> float:
        """The largest relative difference."""
        return max((batch.relative for batch in self.batches), default=0.0)

    @property
    def agreement(self) -> float:
        """The lowest top-1 agreement over all batch sizes."""
        return min((batch.top1_agreement for batch in self.batches), default=0.0)

    def __str__(self) -> str:
        """Results and limits in words."""
        n = max((batch.n_images for batch in self.batches), default=0)
        bar = tolerance_text(self.tolerance, self.torch_rounding)
        accepted = f"{bar}), equal top-1 on {self.agreement:.2%} of {n} images"
        return (
            f"differs by {self.worst:.1e} of the largest logit (accepted {accepted}"
            f" (accepted {self.min_agreement:.1%})"
        )

    @property
    def passed(self) -> bool:
        """Whether all batch sizes are within the tolerance and agree often enough.

        With few images the rate is uncertain, see `core.stats.agrees`.
        """
        return bool(self.batches) and all(
            b.relative <= self.tolerance and b.agrees(self.min_agreement) for b in self.batches
        )


def check_parity(
    model: torch.nn.Module,
    path: Path,
    images: NDArray[np.float32],
    *,
    batches: Sequence[int] = (1, 2, 8),
    tolerance: float = FP32_TOLERANCE,
    min_agreement: float = 1.0,
    opened: OpenModel | None = None,
) -> ParityReport:
    """Runs real inputs through `model` (in eval mode, on the CPU) and through a deployed file.

    images: [n, C, H, W], normalised. For each batch size, a partial last batch is left out; if
        there are fewer images than the batch size, they are repeated. A file with a fixed batch is
        checked only at that size.
    opened: the file in its runtime; without it, ONNX Runtime opens the file.

    Raises:
        UserError: the file does not load, or there are no images.
        CheckFailed: outputs are not finite, so they cannot be compared.
    """
    import torch

    opened = opened or onnxruntime_model(path, threads=torch.get_num_threads())
    expected = torch_logits(model, images)
    return compare_batches(
        expected,
        opened,
        images,
        file=Path(path).name,
        batches=batches,
        tolerance=tolerance,
        min_agreement=min_agreement,
    )


def torch_rounding(
    model: torch.nn.Module, images: NDArray[np.float32], logits: NDArray[np.float32]
) -> float:
    """Largest difference of torch's float32 logits from its float64 logits / the largest logit.

    It is measured on the first `N_ROUNDED` images. It is about 1e-6, but a BN channel whose
    variance is almost 0 can make it 1e-3: then no runtime computes the float32 logits of torch.
    The result is 0 if the network cannot compute in float64.

    logits: the `torch_logits` of the images.
    """
    import torch

    images = images[:N_ROUNDED]
    exact = copy.deepcopy(model).cpu().double().eval()
    x = torch.from_numpy(images)
    x = x.double() if x.is_floating_point() else x
    try:
        with torch.inference_mode():
            precise = torch.cat([exact(part) for part in torch.split(x, N_AT_ONCE)]).numpy()
    except RuntimeError:  # constants of another type, of a network that hwnas did not build
        return 0.0
    found = logits[: len(images)]
    rounding = float(relative(np.abs(found - precise), found).max())
    return rounding if np.isfinite(rounding) else 0.0


def promised(described: ModelFile, rounding: float) -> ModelFile:
    """Raises the tolerance of an fp32 file to `ROUNDINGS` times torch's own rounding, if larger.

    `MOST_TOLERANCE` is the limit. Other precisions keep the tolerance of their format.

    rounding: see `torch_rounding`.
    """
    tolerance = min(ROUNDINGS * rounding, MOST_TOLERANCE[described.precision])
    if described.precision != "fp32" or tolerance <= described.parity_tolerance:
        return described
    return replace(described, parity_tolerance=tolerance, torch_rounding=rounding)


def is_kept(model: ModelFile, found: BatchParity) -> bool:
    """Whether the outputs of a file agree with those of torch as its manifest entry promises.

    The relative difference must be at most `parity_tolerance`, and top-1 must agree at a rate of at
    least `min_agreement`, within the uncertainty of a rate (`core.stats.agrees`).
    """
    return found.relative <= model.parity_tolerance and found.agrees(model.min_agreement)


def tolerance_text(tolerance: float, rounding: float | None) -> str:
    """The tolerance as text; with the reason, if `rounding` raised it (see `promised`)."""
    if rounding is None:
        return f"{tolerance:.0e}"
    return f"{tolerance:.0e}, because torch's own rounding is {rounding:.0e}"


def torch_logits(model: torch.nn.Module, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logits [n, classes] of `model` in eval mode; the mode of the model is restored."""
    import torch

    was_training = model.training
    device = next((parameter.device for parameter in model.parameters()), None)
    model.eval()
    try:
        with torch.inference_mode():
            parts = torch.split(torch.from_numpy(images), N_AT_ONCE)
            logits = torch.cat([model(part.to(device)) for part in parts])
    finally:
        model.train(was_training)
    found: NDArray[np.float32] = logits.cpu().numpy()
    return found


def compare_batches(
    expected: NDArray[np.float32],
    opened: OpenModel,
    images: NDArray[np.float32],
    *,
    file: str,
    batches: Sequence[int] = (1, 2, 8),
    tolerance: float = FP32_TOLERANCE,
    min_agreement: float = 1.0,
    rounding: float | None = None,
    most: int | None = None,
) -> ParityReport:
    """Compares the logits of a deployed model with `expected` [n, classes] at every batch size.

    Images are repeated if there are fewer than the batch size.
    most: largest number of images at all batch sizes except the largest; None: all images.
    rounding: `ModelFile.torch_rounding`.

    Raises:
        UserError: there are no images.
        CheckFailed: outputs are not finite, or have another shape.
    """
    if opened.batch is not None:
        batches = (opened.batch,)
    if not len(images):
        raise UserError(
            "comparing an exported file with torch needs images",
            expected="at least one image",
            found="none",
        )
    results = []
    for batch in batches:
        given = len(images) if most is None or batch == max(batches) else min(most, len(images))
        n = max(1, given // batch) * batch
        rows: Any = slice(n) if n <= len(images) else np.arange(n) % len(images)
        logits = opened.logits(images[rows], batch)
        compared = compare(expected[rows], logits, batch, rounding=rounding)
        results.append(replace(compared, n_images=min(n, len(images))))
    return ParityReport(file, opened.runtime, tolerance, min_agreement, tuple(results), rounding)


def compare(
    expected: NDArray[np.float32],
    found: NDArray[np.float32],
    batch: int = 1,
    *,
    rounding: float | None = None,
) -> BatchParity:
    """Compares two arrays of logits [n, classes].

    rounding: see `ModelFile.torch_rounding`. Two classes are tied if their expected logits differ
        by at most twice this, or `TIE` if larger, relative to the largest expected logit.

    Raises:
        CheckFailed: shapes differ, or a value is not finite.
    """
    if expected.shape != found.shape:
        raise CheckFailed(
            "outputs differ in shape",
            expected=f"shape {list(expected.shape)}",
            found=f"shape {list(found.shape)}",
        )
    outputs = {"the torch network": expected, "the exported file": found}
    if bad := [name for name, values in outputs.items() if not np.isfinite(values).all()]:
        found_in = f"NaN or infinity from {' and '.join(bad)}"
        raise CheckFailed("outputs are not finite", found=found_in, where=f"batch {batch}")
    difference = np.abs(expected.astype(np.float64) - found)
    named = np.take_along_axis(expected, found.argmax(1)[:, None], axis=1)[:, 0]
    tie = max(TIE, 2 * min(rounding or 0.0, MOST_TOLERANCE["fp32"]))
    return BatchParity(
        batch=batch,
        n_images=len(expected),
        max_abs_difference=float(difference.max()),
        mean_abs_difference=float(difference.mean()),
        relative=float(relative(difference, expected).max()),
        top1_agreement=float((named >= (expected - tie * logit_scale(expected)).max(1)).mean()),
    )
