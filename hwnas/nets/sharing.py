"""Names and shapes of the shared weights that each layer of an arch uses.

The name of a weight consists of its slot and its place in the block. Slots that choose between
whole operators (`Stage.ops`) have separate weights per alternative, as in the training of FBNet,
ProxylessNAS and NAS-Bench-Macro. With `share_ops` the alternatives share weights.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from hwnas.spaces.arch import Arch
from hwnas.spaces.index import slot_alternatives
from hwnas.spaces.lowering import lower_named
from hwnas.spaces.network import Step
from hwnas.spaces.ops import ACT_FIRST, Layer, OpSpec, layers
from hwnas.spaces.space import SearchSpace

__all__ = ["Node", "Site", "plan", "program", "shared_shapes"]


@dataclass(frozen=True)
class Site:
    """A layer of an arch, and the paths of its weights and of the BN after it ("" if none).

    A BN that follows no convolution is a site of its own: `path` is "", `bn_path` is its path.
    """

    layer: Layer
    path: str
    bn_path: str


@dataclass(frozen=True)
class Node:
    """An operator of an arch, and the paths of the weights of its layers.

    sites: the layers of the main branch.
    shortcut: the layer of the residual connection, if it has one.
    is_branch: see `Network.branches`.
    act_first: activations come before convolutions (`Network.act_first`, `ACT_FIRST`).
    """

    slot: str
    op: OpSpec
    sites: tuple[Site, ...]
    shortcut: Site | None
    act_first: bool = False
    is_branch: bool = False

    @property
    def all_sites(self) -> tuple[Site, ...]:
        """The layers in the order of `layers(op)`."""
        return self.sites if self.shortcut is None else (*self.sites, self.shortcut)


def plan(space: SearchSpace, arch: Arch, *, share_ops: bool) -> tuple[Node, ...]:
    """The operators of `arch` in execution order, without those that `Network.live` removes.

    Raises:
        UserError: the arch does not belong to the space, or the space has no supernet.
    """
    return tuple(node for _, node in program(space, arch, share_ops=share_ops) if node is not None)


@lru_cache(maxsize=64)
def program(
    space: SearchSpace, arch: Arch, *, share_ops: bool
) -> tuple[tuple[Step, Node | None], ...]:
    """The steps of `arch` in execution order, each with its operator (None if the step is a sum).

    Raises:
        UserError: the arch does not belong to the space, or the space has no supernet.
    """
    macro = space.macro
    macro.require("supernet", space=space.name)
    (network, slots), chosen = lower_named(space, arch), space.view(arch)

    def node(step: Step) -> Node | None:
        if step.op is None:
            return None
        slot = slots[step.position]
        alternative = "" if share_ops else str(chosen.get(macro.op_choice(slot), ""))
        found = _node(slot, alternative, step.op, act_first=network.act_first)
        return replace(found, is_branch=step.position in network.branches)

    return tuple((step, node(step)) for step in network.program)


def shared_shapes(
    space: SearchSpace, *, share_ops: bool
) -> tuple[Mapping[str, list[Layer]], Mapping[str, list[Layer]]]:
    """Maps each path of a supernet to the layers that share the weights at this path.

    Returns two mappings: for convolutions and linear layers, and for BN.

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
                    if site.path:
                        weights[site.path].append(site.layer)
                    if site.bn_path:
                        norms[site.bn_path].append(site.layer)
    return weights, norms


def _node(slot: str, alternative: str, op: OpSpec, *, act_first: bool = False) -> Node:
    """Paths are `slot.alternative.layer`; those of BN end in `_bn`.

    The last layer of a `dsconv` is named as that of an `mbconv`. So a slot that chooses between
    expansion 1 and larger ones shares its depthwise and projection weights.
    """
    prefix = f"{slot}.{alternative.replace('.', ',')}" if alternative else slot  # dots nest
    if op.kind == "norm":
        return Node(slot, op, (Site(norm_layer(op), "", f"{prefix}.norm_bn"),), None)
    sites, shortcut = [], None
    for layer in layers(op):
        is_last = op.kind == "dsconv" and layer.name == "conv_pw"
        path = f"{prefix}.{'conv_pwl' if is_last else layer.name}"
        site = Site(layer, path, f"{path}_bn" if layer.has_bn else "")
        if layer.name == "conv_shortcut":
            shortcut = site
        else:
            sites.append(site)
    is_first = op.kind in ACT_FIRST or (act_first and op.kind == "conv")
    return Node(slot, op, tuple(sites), shortcut, is_first)


def norm_layer(op: OpSpec) -> Layer:
    """Describes the BN of a `norm` operator as a `Layer`; it has no convolution."""
    return Layer("norm", op.in_channels, op.out_channels, op.in_hw, op.out_hw, act=op.act)
