"""Settings of the reference networks. Torch-free."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field, field_validator

from hwnas.core.config import StrictModel
from hwnas.core.errors import Invalid
from hwnas.latency.sections import ProfileConfig

__all__ = ["NAMES", "PUBLISHED_PX", "ReferencesConfig"]

NAMES = (
    "mobilenetv4_conv_small.e2400_r224_in1k",
    "mobilenetv3_large_100.miil_in21k_ft_in1k",
    "mobilenetv3_small_100.lamb_in1k",
    "lcnet_100.ra2_in1k",
    "hgnetv2_b0.ssld_stage2_ft_in1k",
    "hardcorenas_f.miil_green_in1k",
    "efficientnet_b0.ra4_e3600_r224_in1k",
    "mobilenetv2_100.ra_in1k",
)
"""Networks of timm that users would otherwise download, each with the name of its weights."""

PUBLISHED_PX = 224
"""Resolution at which the accuracies of `NAMES` are published."""

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")]
Pixels = Annotated[int, Field(ge=8, le=4096)]


class ReferencesConfig(StrictModel):
    """Published networks that are timed together with the winner on every device of the run."""

    names: Annotated[tuple[Name, ...], Field(min_length=1, max_length=64)] = NAMES
    """Published networks that are timed together with the winner; off by default,
    `search.references: {}` turns it on. Names of timm, with the weights whose published accuracy is
    shown.
    """
    resolutions: Annotated[tuple[Pixels, ...], Field(max_length=64)] = ()
    """Resolutions in px at which the published networks are timed; default: 224 and those of the
    space.
    """
    train: Annotated[tuple[Name, ...], Field(max_length=64)] = ()
    """Published networks that are also trained on the data, with the recipe and at the resolution
    of the winner (see `start`). Their accuracies are compared with that of the winner.
    """
    start: Literal["published", "scratch"] = "published"
    """How the networks of `train` are trained. `published`: the published weights are fine-tuned
    like the winner; `scratch`: fresh weights are trained without a teacher.
    """
    epochs: Annotated[int | None, Field(ge=1, le=100_000)] = None
    """Number of passes over the training images for the networks of `train`; null:
    `finetune.epochs`, or `alone.epochs` from scratch.
    """
    min_rounds: Annotated[int, Field(ge=2, le=10_000)] = 8
    """Minimum number of rounds in which published networks are timed, even if `time_budget_s` is
    exceeded.
    """
    time_budget_s: Annotated[float, Field(ge=0, le=1e6)] = Field(
        15.0, description="Time limit for timing the published networks on each device, in seconds."
    )

    @field_validator("names", "train")
    @classmethod
    def _distinct(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if twice := [name for name in names if names.count(name) > 1]:
            raise Invalid("different names", f"{twice[0]} twice")
        return names

    @property
    def all_names(self) -> tuple[str, ...]:
        """`names`, followed by the other networks of `train`."""
        return tuple(dict.fromkeys((*self.names, *self.train)))

    def sizes(self, own: Iterable[int]) -> tuple[int, ...]:
        """Resolutions in px, ascending; `own`: those of the space."""
        return tuple(sorted(set(self.resolutions or (*own, PUBLISHED_PX))))

    def protocol(self, profile: ProfileConfig) -> ProfileConfig:
        """Settings of profiling with the time budget of the references."""
        return profile.model_copy(
            update={"min_rounds": self.min_rounds, "retiming_budget_s": self.time_budget_s}
        )
