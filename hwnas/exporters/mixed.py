"""Mixed precision in 8-bit networks of any format: sensitive layers stay in float.

If the full 8-bit network disagrees too often with the float network, some layers stay in float. To
select them, each layer is quantised alone. Layers are ranked by the error that this causes in the
logits, divided by the time that 8 bits save in the layer (`saving`). The smallest number of
top-ranked layers that gives enough agreement stays in float.

Measured on three subnets of MobileNetV2 at 48 px, LiteRT, one thread, equal agreement: 0.36, 0.37
and 0.35 of ONNX Runtime's fp32 latency. Ranking by the error only, with 1, 2, 4, ... layers in
float, gave 0.66, 0.48 and 0.36 (`benchmarks/quickstart_int8.py`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Generic, Literal, Protocol, TypeVar

import numpy as np
from pydantic import Field

from hwnas.core.config import LATER
from hwnas.core.errors import UserError
from hwnas.core.rng import rng
from hwnas.exporters.base import Source
from hwnas.interfaces import Images

__all__ = [
    "LARGEST",
    "Calibration",
    "MaxFloatLayers",
    "Mixed",
    "NCalibration",
    "Quantize",
    "Seed",
    "TargetAgreement",
    "Weights",
    "calibration",
    "closeness",
    "mixed",
    "saving",
]

NCalibration = Annotated[
    int,
    Field(
        ge=1,
        description="Number of training images from which the ranges of activations in `int8` are"
        " determined.",
    ),
]
Seed = Annotated[
    int, Field(ge=0, description="Seed of the selection of the `n_calibration` images.")
]
TargetAgreement = Annotated[
    float,
    Field(
        gt=0,
        le=1,
        description="Minimum share of images on which the `int8` file and the float network must"
        " have the same top-1 class. If the share is lower, some layers stay in float.",
    ),
]
MaxFloatLayers = Annotated[
    float,
    Field(ge=0, le=1, description="Largest share of the layers that stay in float in `int8`."),
]
Weights = Annotated[
    Literal["compensated", "nearest"],
    LATER,
    Field(
        description="How `int8` rounds weights. `compensated`: by GPTQ, if this brings the logits"
        " closer to those of the float network; `nearest`: to the nearest value, always used"
        " with `finetune.precision: int8`. No effect in other precisions.",
    ),
]
"""How weights are rounded. All 8-bit formats share this setting and those above it."""

log = logging.getLogger(__name__)

LARGEST = 127
"""Largest integer of a weight in 8 bits; the smallest is -127."""
N_JUDGED = 64  # images for the ranking of layers
MACS_PER_WEIGHT = 32  # reading a weight takes as long as this many multiply-accumulates
Model = TypeVar("Model")
Made = TypeVar("Made", covariant=True)


@dataclass(frozen=True)
class Mixed(Generic[Model]):
    """The 8-bit network and the precision of its layers (convolutions and linear layers).

    weights: the chosen way to round weights, a value of the setting `Weights`.
    agreement: share of images with the same class as in the float network.
    """

    model: Model
    weights: str
    float_layers: tuple[str, ...]
    n_layers: int
    agreement: float
    agreement_all_int8: float

    @property
    def facts(self) -> dict[str, Any]:
        """Metadata of the file, as JSON values."""
        return {
            "weights": self.weights,
            "agreement_all_int8": round(self.agreement_all_int8, 4),
            "agreement": round(self.agreement, 4),
            "float_layers": list(self.float_layers),
            "n_layers": self.n_layers,
        }


class Quantize(Protocol[Made]):
    """A function that makes an 8-bit network."""

    def __call__(self, only: Sequence[str] = (), but: Sequence[str] = ()) -> Made:
        """Quantises the whole network, only some layers, or all except some."""
        ...


def saving(n_weights: int, n_pixels: int) -> float:
    """Time that 8 bits save in a layer, in MACs: arithmetic, and reading its weights once."""
    return float(n_weights * (n_pixels + MACS_PER_WEIGHT))


def mixed(
    ways: Mapping[str, Quantize[Model]],
    logits: Callable[[Model, Images], Images],
    layers: Mapping[str, float],
    judged: Images,
    expected: Images,
    *,
    target_agreement: float,
    max_float_layers: float,
) -> Mixed[Model]:
    """Makes an 8-bit network, and leaves layers in float until its top-1 agrees well enough.

    The agreement is measured on images `judged`, against the float logits `expected` [n, classes].
    If `target_agreement` cannot be reached, the best network is returned.

    ways: maps values of the setting `Weights` to functions that quantise. The one whose 8-bit
        network agrees best is used; the smallest mean square error of the logits decides ties.
    layers: maps the name of each layer to its `saving`.
    max_float_layers: maximum share of layers that stay in float.
    """

    def tried(n: int) -> Mixed[Model]:
        model = quantize(but=worst[:n])
        agreement, _ = closeness(logits(model, judged), expected)
        return Mixed(model, weights, tuple(worst[:n]), len(layers), agreement, agreement)

    wholes = {name: way() for name, way in ways.items()}
    found = {name: closeness(logits(one, judged), expected) for name, one in wholes.items()}
    weights = max(found, key=found.__getitem__)
    quantize, agreement = ways[weights], found[weights][0]
    whole = best = Mixed(wholes[weights], weights, (), len(layers), agreement, agreement)
    most = min(int(max_float_layers * len(layers)), len(layers) - 1)  # at least one is in 8 bits
    if whole.agreement >= target_agreement or not most:
        return whole
    log.info(
        "int8: top-1 agreement %.1f %%; looking for layers to keep in float", 100 * whole.agreement
    )
    worst = _ranked(quantize, logits, layers, judged[:N_JUDGED], expected[:N_JUDGED])
    too_few, n = 0, 1
    while best.agreement < target_agreement and too_few < most:
        some_float = tried(n)
        best = max(best, some_float, key=lambda one: one.agreement)
        if some_float.agreement < target_agreement:
            too_few, n = n, min(2 * n, most)
    while best.agreement >= target_agreement and n - too_few > 1:
        middle = (too_few + n) // 2
        some_float = tried(middle)
        if some_float.agreement >= target_agreement:
            best, n = some_float, middle
        else:
            too_few = middle
    n_float = len(best.float_layers)
    log.info(
        "int8: %d of %d layers stay in float; top-1 agreement %.1f %%",
        n_float,
        len(layers),
        100 * best.agreement,
    )
    return replace(best, agreement_all_int8=whole.agreement)


def _ranked(
    quantize: Quantize[Model],
    logits: Callable[[Model, Images], Images],
    layers: Mapping[str, float],
    judged: Images,
    expected: Images,
) -> list[str]:
    """The layers by the error of the logits that 8 bits cause in each, relative to its saving."""
    errors = {
        name: float(np.square(logits(quantize(only=[name]), judged) - expected).mean()) / saved
        for name, saved in layers.items()
    }
    return sorted(layers, key=lambda name: -errors[name])


def closeness(logits: Images, expected: Images) -> tuple[float, float]:
    """Top-1 agreement, then minus the mean square error."""
    agreement = float((logits.argmax(1) == expected.argmax(1)).mean())
    return agreement, -float(np.square(logits - expected).mean())


@dataclass(frozen=True)
class Calibration:
    """Images [n, C, H, W]: `ranges` determine the 8-bit ranges, `judged` measure the result."""

    ranges: Images
    judged: Images


def calibration(source: Source, n: int, seed: int, stream: str) -> Calibration:
    """A seeded selection of n training images for the ranges; `held_out` measures the result.

    Without `held_out`, the other training images measure the result, or the same images if there
    are no others. A network is more certain on images that it was trained on, so agreement on them
    is too optimistic: see `benchmarks/int8_agreement.py`.

    Raises:
        UserError: there are no images, or they have another size than the network expects.
    """
    images = source.images
    if images is None:
        raise UserError(
            "8-bit export needs calibration images",
            expected="training images",
            found="none",
            fix="give `images` to `export`; `hwnas export RUN` takes them from the data set",
        )
    given = {"images": images, "held_out": source.held_out}
    for name, array in given.items():
        if array is not None and array.shape[1:] != tuple(source.input_shape):
            raise UserError(
                "the calibration images do not have the input size of the network",
                expected=f"images of shape [n, {', '.join(map(str, source.input_shape))}]",
                found=f"images of shape {list(array.shape)}",
                where=name,
                fix="give images that are resized and normalised as in training",
            )
    order = rng(seed, stream).permutation(len(images))
    chosen, others = order[:n], order[n:]
    if source.held_out is not None:
        return Calibration(images[chosen], source.held_out)
    return Calibration(images[chosen], images[others if len(others) else chosen])
