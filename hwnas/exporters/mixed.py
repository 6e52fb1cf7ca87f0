"""Networks in 8 bits of which the layers that suffer stay float, in any format.

If the whole network in 8 bits names too many other classes than the float one, every layer is
quantised alone and judged by the error it brings to the logits; the worst 1, 2, 4, ... layers then
stay float until the classes agree.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Generic, Protocol, TypeVar

import numpy as np
from pydantic import Field

from hwnas.core.errors import UserError
from hwnas.core.rng import rng
from hwnas.exporters.base import Source
from hwnas.interfaces import Images

__all__ = [
    "Calibration",
    "MaxFloatLayers",
    "Mixed",
    "NCalibration",
    "Quantize",
    "Seed",
    "TargetAgreement",
    "calibration",
    "mixed",
]

NCalibration = Annotated[int, Field(ge=1, description="training images that set ranges")]
Seed = Annotated[int, Field(ge=0, description="which of the images those are")]
TargetAgreement = Annotated[
    float, Field(gt=0, le=1, description="top-1 agreement below which layers stay float")
]
MaxFloatLayers = Annotated[
    float, Field(ge=0, le=1, description="share of the layers that may stay float")
]
"""Settings of every format in 8 bits."""

log = logging.getLogger(__name__)

N_JUDGED = 64  # images that judge single layers
Model = TypeVar("Model")
Made = TypeVar("Made", covariant=True)


@dataclass(frozen=True)
class Mixed(Generic[Model]):
    """The network in 8 bits and what became of its layers (convolutions and linear ones).

    agreement: share of images of which the float network names the same class.
    """

    model: Model
    float_layers: tuple[str, ...]
    n_layers: int
    agreement: float
    agreement_all_int8: float

    @property
    def facts(self) -> dict[str, Any]:
        """JSON-ready: what a file says of itself."""
        return {
            "agreement_all_int8": round(self.agreement_all_int8, 4),
            "agreement": round(self.agreement, 4),
            "float_layers": list(self.float_layers),
            "n_layers": self.n_layers,
        }


class Quantize(Protocol[Made]):
    """Makes the network in 8 bits."""

    def __call__(self, only: Sequence[str] = (), but: Sequence[str] = ()) -> Made:
        """The whole network, only some of its layers, or all but some."""
        ...


def mixed(
    quantize: Quantize[Model],
    logits: Callable[[Model, Images], Images],
    layers: Sequence[str],
    judged: Images,
    expected: Images,
    *,
    target_agreement: float,
    max_float_layers: float,
) -> Mixed[Model]:
    """A network in 8 bits whose top-1 agrees with `expected` [n, classes] on images `judged`.

    max_float_layers: share of the layers that may stay float; the best is taken where even that
    does not reach `target_agreement`.
    """

    def agreement(model: Model) -> float:
        return float((logits(model, judged).argmax(1) == expected.argmax(1)).mean())

    model = quantize()
    first = best = agreement(model)
    kept: tuple[str, ...] = ()
    most = int(max_float_layers * len(layers))
    if best < target_agreement and most:
        log.info("int8: top-1 agreement %.1f %%; looking for layers to keep float", 100 * best)
        some, reference = judged[:N_JUDGED], expected[:N_JUDGED]
        errors = [
            float(np.square(logits(quantize(only=[name]), some) - reference).mean())
            for name in layers
        ]
        worst = [layers[i] for i in np.argsort(errors)[::-1]]
        n = 1
        while best < target_agreement:
            tried = quantize(but=worst[:n])
            if (found := agreement(tried)) > best:
                model, best, kept = tried, found, tuple(worst[:n])
            if n == most:
                break
            n = min(2 * n, most)
        log.info("int8: %d of %d layers stay float: %.1f %%", len(kept), len(layers), 100 * best)
    return Mixed(model, kept, len(layers), best, first)


@dataclass(frozen=True)
class Calibration:
    """Images [n, C, H, W]: `ranges` set the ranges of 8 bits, by `judged` the result is judged."""

    ranges: Images
    judged: Images


def calibration(source: Source, n: int, seed: int, stream: str) -> Calibration:
    """A seeded draw of n of the training images to set ranges, the others to judge.

    Where there are no others, the same images judge.

    Raises:
        UserError: there are no images, or they are of another size than the network takes.
    """
    images = source.images
    if images is None or not len(images):
        raise UserError(
            "8 bits need images to calibrate with",
            expected="training images",
            found="none",
            fix="give `images` to `export`; `hwnas export RUN` takes them from the data set",
        )
    if images.shape[1:] != tuple(source.input_shape):
        raise UserError(
            "images to calibrate with are of another size than the network takes",
            expected=f"[n, {', '.join(map(str, source.input_shape))}]",
            found=list(images.shape),
            where="images",
        )
    order = rng(seed, stream).permutation(len(images))
    chosen, others = order[:n], order[n:]
    return Calibration(images[chosen], images[others if len(others) else chosen])
