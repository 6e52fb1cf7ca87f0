"""Names and shapes of the shared weights that each layer of an arch uses.

The name of a weight consists of its slot and its place in the block. Slots that choose between
whole operators (`Stage.ops`) have separate weights per alternative, as in the training of FBNet,
ProxylessNAS and NAS-Bench-Macro. With `share_ops` the alternatives share weights.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from hwnas.spaces.arch import Arch
from hwnas.spaces.index import slot_alternatives
from hwnas.spaces.ops import Layer, OpSpec, layers
from hwnas.spaces.space import SearchSpace

__all__ = ["Node", "Site", "plan", "shared_shapes"]


@dataclass(frozen=True)
class Site:
    """A layer of an arch, and the paths of its weights and of the BN after it ("" if none)."""

    layer: Layer
    path: str
    bn_path: str


@dataclass(frozen=True)
class Node:
    """An operator of an arch and its layers; `shortcut` is not part of the main branch."""

    slot: str
    op: OpSpec
    sites: tuple[Site, ...]
    shortcut: Site | None

    @property
    def all_sites(self) -> tuple[Site, ...]:
        """The layers in the order of `layers(op)`."""
        return self.sites if self.shortcut is None else (*self.sites, self.shortcut)


@lru_cache(maxsize=64)
def plan(space: SearchSpace, arch: Arch, *, share_ops: bool) -> tuple[Node, ...]:
    """The operators of `arch` in execution order.

    Raises:
        UserError: the arch does not belong to the space, or the space has no supernet.
    """
    space.macro.require("supernet", space=space.name)
    space.check(arch)
    names = space.macro.slot_names()
    chosen = space.view(arch)
    return tuple(
        _node(slot, "" if share_ops else str(chosen.get(f"{slot}.op", "")), op)
        for slot, op in zip(names, space.macro.lower_slots(arch.codes), strict=True)
        if op is not None
    )


def shared_shapes(
    space: SearchSpace, *, share_ops: bool
) -> tuple[Mapping[str, list[Layer]], Mapping[str, list[Layer]]]:
    """The layers that share each path of the supernet: first for weights, then for BN.

    Raises:
        UserError: the space has no supernet.
    """
    space.macro.require("supernet", space=space.name)
    weights: dict[str, list[Layer]] = defaultdict(list)
    norms: dict[str, list[Layer]] = defaultdict(list)
    for slot, alternatives in zip(space.macro.slot_names(), slot_alternatives(space), strict=True):
        for alternative, ops in alternatives.items():
            for op in ops:
                for site in _node(slot, "" if share_ops else alternative, op).all_sites:
                    weights[site.path].append(site.layer)
                    if site.bn_path:
                        norms[site.bn_path].append(site.layer)
    return weights, norms


def _node(slot: str, alternative: str, op: OpSpec) -> Node:
    """Paths are `slot.alternative.layer`; those of BN end in `_bn`.

    The last layer of a `dsconv` is named as that of an `mbconv`. So a slot that chooses between
    expansion 1 and larger ones shares its depthwise and projection weights.
    """
    prefix = f"{slot}.{alternative.replace('.', ',')}" if alternative else slot  # dots nest
    sites, shortcut = [], None
    for layer in layers(op):
        is_last = op.kind == "dsconv" and layer.name == "conv_pw"
        path = f"{prefix}.{'conv_pwl' if is_last else layer.name}"
        site = Site(layer, path, f"{path}_bn" if layer.has_bn else "")
        if layer.name == "conv_shortcut":
            shortcut = site
        else:
            sites.append(site)
    return Node(slot, op, tuple(sites), shortcut)
