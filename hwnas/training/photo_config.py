"""Settings that data sets of photos share, and the paths of their files. Torch-free."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from hwnas.core.config import LATER, StrictModel
from hwnas.core.env import user_path
from hwnas.core.errors import Invalid

__all__ = [
    "NORMALISATIONS",
    "AugmentConfig",
    "MeanStd",
    "Normalise",
    "PhotoConfig",
    "data_root",
    "fixed_normalisation",
    "means",
    "relative_to",
    "where_found",
]

log = logging.getLogger(__name__)

Share = Annotated[float, Field(ge=0, le=1)]

Normalise = Literal["data", "imagenet", "inception"]

MeanStd = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of [0, 1] pixels, per channel."""

NORMALISATIONS: Mapping[Normalise, MeanStd] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "inception": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}
"""Fixed values, named as in timm (`timm.data.constants`).

`data` stands for values computed from the training images.
"""


class AugmentConfig(StrictModel):
    """Random changes of a training image, made by torchvision and timm; evaluation has none.

    If both are given, `crop_scale` (a random resized crop) replaces `pad`.
    """

    pad: Annotated[float, Field(ge=0, le=0.5)] = Field(
        default=0.125,
        description="Width of the mirrored border that is added for a random crop, relative to the"
        " side of the image. No effect with `crop_scale`.",
    )
    crop_scale: tuple[float, float] | None = Field(
        default=None,
        description="Smallest and largest area of a random resized crop, relative to the image;"
        " null: a crop of constant size, from the border `pad`.",
    )
    flip: Share = Field(
        default=0.5, description="Probability of a horizontal flip of a training image."
    )
    color_jitter: Share = Field(
        default=0.0,
        description="Largest relative change of brightness, contrast and saturation; 0: none.",
    )
    auto_augment: str | None = Field(
        default=None,
        description="Policy of timm for further random changes, e.g. rand-m9-mstd0.5, original,"
        " augmix-m3-w3; null: none.",
    )
    erase: Share = Field(
        default=0.0,
        description="Probability that a random rectangle of a training image is erased (timm).",
    )

    @model_validator(mode="after")
    def _has_a_range(self) -> AugmentConfig:
        if self.crop_scale is not None and not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            shares = "two shares, least and largest, with 0 < least <= largest <= 1"
            raise Invalid(shares, list(self.crop_scale), key="crop_scale")
        return self

    def border(self, px: int) -> int:
        """Mirrored pixels on each side of an image of `px`, for the random crop."""
        return 0 if self.crop_scale is not None else round(self.pad * px)


class PhotoConfig(StrictModel):
    """Settings that all data sets of photos share."""

    name: str
    normalise: Annotated[Normalise, LATER] = Field(
        default="data",
        description=(
            "Mean and standard deviation with which images are normalised: those of the training"
            " images (`data`), those of ImageNet, or 0.5 and 0.5 (`inception`). Use those with"
            " which the starting weights were trained."
        ),
    )


def fixed_normalisation(section: object) -> MeanStd | None:
    """Mean and std that a section `data` sets; None if training images determine them."""
    return NORMALISATIONS.get(getattr(section, "normalise", "data"))


def data_root(root: str) -> Path:
    """Absolute path of `root`. A relative one is below $HWNAS_DATA, or the working directory.

    With a relative `root`, a run folder refers to the same data on every machine.

    Raises:
        UserError: `~` is used, and there is no home folder.
    """
    base = user_path(os.environ.get("HWNAS_DATA", "."), where="HWNAS_DATA")
    return (base / user_path(root, where="data.root")).absolute()


def relative_to(root: str) -> str:
    """A sentence that says to which folder `root` is relative, for error messages."""
    if user_path(root, where="data.root").is_absolute():
        return f"{root} is an absolute path"
    base = data_root(".")
    given = "HWNAS_DATA" in os.environ
    why = "set by HWNAS_DATA" if given else "the working directory, as HWNAS_DATA is not set"
    return f"{root!r} is relative to {base} ({why})"


def means(root: str, given: str | None, folder: str | None) -> bool:
    """Whether `root` can mean `folder`: `root` equals `given`, or `folder` ends with `root`.

    root: current value of the setting `data.root`.
    given: its value when the data were in `folder`.
    """
    return root == given or f"/{folder}".endswith(f"/{root}")


def where_found(
    section: Any, last: Sequence[tuple[str | None, str | None]], beside: Sequence[Path]
) -> Any:
    """Returns `section`, with an absolute `root` if the data are not where `root` says.

    last: pairs of an earlier value of `root` and the folder of the data then. Only folders that
        the current `root` can refer to (`means`) are tried.
    beside: further folders to which a relative `root` can refer.
    """
    root = getattr(section, "root", None)
    if not isinstance(root, str) or data_root(root).exists():
        return section
    meant = [Path(at) for given, at in last if at is not None and means(root, given, at)]
    for place in [*meant, *(folder / root for folder in beside)]:
        if place.exists():
            log.info("data: found in %s", place.absolute())
            return section.model_copy(update={"root": str(place.absolute())})
    return section
