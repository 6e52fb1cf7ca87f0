"""Search spaces: choices as data, and the function that lowers an arch to its operators."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from hwnas.core.registry import Registry, VariantModule

if TYPE_CHECKING:
    from hwnas.spaces.space import SearchSpace

__all__ = ["REGISTRY", "SpaceModule"]


class SpaceModule(VariantModule, Protocol):
    """A search space. It imports no torch and is independent of any data set."""

    def build(self, config: Any, *, num_classes: int, in_channels: int = 3) -> SearchSpace:
        """Builds the space.

        in_channels: channels of the images.
        num_classes: outputs of the classifier.

        Raises:
            UserError: the settings do not define a valid space.
        """
        ...


REGISTRY = Registry[SpaceModule](
    kind="space",
    package="hwnas.spaces",
    infrastructure=frozenset(
        {
            "arch",
            "cell_graphs",
            "cell_views",
            "cells",
            "chains",
            "checks",
            "choice",
            "cost",
            "drawing",
            "enumeration",
            "genotypes",
            "graphs",
            "index",
            "limits",
            "load",
            "lowering",
            "memory",
            "mobile_sections",
            "network",
            "nlp_recipes",
            "op_text",
            "ops",
            "padding",
            "policy",
            "published",
            "recurrent_genotypes",
            "running",
            "skeleton",
            "slot_tables",
            "space",
            "within",
        }
    ),
    contract=SpaceModule,
)
