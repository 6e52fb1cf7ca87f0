"""Sorts channels by importance, so that narrower subnets start with the most important ones.

Smaller layers use the first channels. So a supernet that starts from a trained network first sorts
its channels by the L1 norm of the weights that read them (Once-for-all 1908.09791, section 3.2,
"elastic width"). The output of the largest subnet does not change.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from hwnas.nets.elastic import ElasticConv2d
from hwnas.nets.sharing import Node
from hwnas.nets.supernet import Supernet

__all__ = ["sort_channels"]


@dataclass(eq=False)
class _Channels:
    """A set of channels that can be reordered: every (tensor, dimension) that they index."""

    size: int
    writes: list[tuple[Tensor, int]] = field(default_factory=list)
    reads: list[tuple[Tensor, int]] = field(default_factory=list)
    is_fixed: bool = False

    def merge(self, other: _Channels) -> None:
        """Merges channels that a residual connection adds to these, so both keep one order."""
        self.writes += other.writes
        self.reads += other.reads
        self.is_fixed |= other.is_fixed


@torch.no_grad()
def sort_channels(supernet: Supernet) -> None:
    """Sorts the channels of the largest subnet of `supernet` in place, most important first.

    This covers hidden channels of blocks and of SE, the channels between blocks, and those of the
    head. Inputs and outputs of grouped convolutions are not sorted, because their order defines the
    groups. Networks that are not chains keep the order of all channels.
    """
    if not supernet.space.macro.is_chain:
        return
    nodes = supernet.plan(supernet.space.largest())
    image = _Channels(nodes[0].op.in_channels, is_fixed=True)
    found, current = [image], image
    for node in nodes:
        before = current
        current = _follow(supernet, node, before, found)
        if node.op.skip and current is not before and node.shortcut is None:
            before.merge(current)
            found.remove(current)
            current = before
    current.is_fixed = True  # the classes
    for channels in found:
        if not channels.is_fixed:
            _sort(channels)


def _follow(
    supernet: Supernet, node: Node, current: _Channels, found: list[_Channels]
) -> _Channels:
    """The channels that `node` writes; registers the parameters that read and write channels."""
    block_input = gated = current
    for site in node.all_sites:
        layer, module = site.layer, supernet.elastic(site.path)
        written: list[tuple[Tensor, int]] = [(module.weight, 0)]
        if module.bias is not None and layer.has_bias:
            written.append((module.bias, 0))
        if site.bn_path:
            written += [(value, 0) for value in supernet.elastic(site.bn_path).parameters()]
        if isinstance(module, ElasticConv2d) and 1 < layer.groups == layer.in_channels:
            current.writes += written  # depthwise convolutions keep the order of channels
            more = (module.branches, module.scales)
            current.writes += [(part, 1) for part in more if part is not None]
            continue
        if layer.name == "conv_shortcut":
            block_input.reads.append((module.weight, 1))
            current.writes += written
            continue
        if layer.name == "se.conv_reduce":
            gated = current
        if layer.groups > 1:
            current.is_fixed = True
        else:
            current.reads.append((module.weight, 1))
        if layer.name == "se.conv_expand":
            gated.writes += written
            current = gated
            continue
        current = _Channels(layer.out_channels, written, is_fixed=layer.groups > 1)
        found.append(current)
    return current


def _sort(channels: _Channels) -> None:
    importance = torch.zeros(channels.size, device=channels.writes[0][0].device)
    for tensor, dim in channels.reads:
        used = tensor.narrow(dim, 0, channels.size)
        others = [d for d in range(tensor.ndim) if d != dim]
        importance += used.abs().sum(others)
    order = importance.argsort(descending=True, stable=True)
    for tensor, dim in (*channels.writes, *channels.reads):
        used = tensor.narrow(dim, 0, channels.size)
        used.copy_(used.index_select(dim, order))
