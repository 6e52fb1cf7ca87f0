"""`lower()`: converts codes to operators and edges; the only place that computes shapes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hwnas.core.store import content_hash
from hwnas.spaces.arch import Arch
from hwnas.spaces.network import Network, edge_list

if TYPE_CHECKING:
    from hwnas.spaces.space import SearchSpace

__all__ = ["lower", "lower_named", "network_key", "resolution", "slot_names"]


def lower(space: SearchSpace, arch: Arch) -> Network:
    """The operators of one arch in execution order, and the edges between them.

    Raises:
        UserError: the arch does not belong to the space.
    """
    space.check(arch)
    skeleton = space.macro
    slots = skeleton.lower_slots(arch.codes)
    ops = tuple(op for op in slots if op is not None)
    if skeleton.is_chain:
        return Network(ops, None, skeleton.act_first)
    present = np.array([[op is not None for op in slots]])
    edges = edge_list(skeleton.slot_graph.edges(present)[0], present[0])
    return Network(ops, edges, skeleton.act_first)


def lower_named(space: SearchSpace, arch: Arch) -> tuple[Network, tuple[str, ...]]:
    """The network of one arch, and the slot of each of its operators.

    Raises:
        UserError: the arch does not belong to the space.
    """
    network = lower(space, arch)
    slots = zip(slot_names(space), space.macro.lower_slots(arch.codes), strict=True)
    return network, tuple(slot for slot, op in slots if op is not None)


def network_key(space: SearchSpace, arch: Arch) -> str:
    """16 hex digits; equal for archs with the same operators in the same order.

    In a chain this identifies the whole network. In a graph, use `lower(space, arch).key`, which
    also depends on the edges.
    """
    return content_hash([op.key for op in lower(space, arch)])


def resolution(space: SearchSpace, arch: Arch) -> int:
    """Height and width in px of the images that `arch` reads."""
    return space.macro.resolutions[arch.codes[0]]


def slot_names(space: SearchSpace) -> tuple[str, ...]:
    """Names of the slots of the space, such as `stem`, `stage0.block1`, `head`, `classifier`."""
    return space.macro.slot_names()
