"""Search spaces: choices as data, and the one lowering from an arch to its operators."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from hwnas.core.registry import Registry, VariantModule

if TYPE_CHECKING:
    from hwnas.spaces.space import SearchSpace

__all__ = ["REGISTRY", "SpaceModule"]


class SpaceModule(VariantModule, Protocol):
    """A search space. Torch-free; not bound to a data set."""

    def build(self, config: Any, *, num_classes: int, in_channels: int = 3) -> SearchSpace:
        """The space, for images of so many channels and a classifier of so many classes.

        Raises:
            UserError: the settings make no space.
        """
        ...


REGISTRY = Registry[SpaceModule](
    kind="space",
    package="hwnas.spaces",
    infrastructure=frozenset(
        {
            "arch",
            "cells",
            "chains",
            "checks",
            "choice",
            "cost",
            "drawing",
            "enumeration",
            "graphs",
            "index",
            "load",
            "lowering",
            "memory",
            "network",
            "ops",
            "policy",
            "published",
            "skeleton",
            "space",
            "within",
        }
    ),
    contract=SpaceModule,
)
