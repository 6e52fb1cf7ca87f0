"""Runs the operators of an arch on the weights of a supernet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from hwnas.nets.dropping import Drops, drop
from hwnas.nets.elastic import (
    ACTIVATIONS,
    KEEPING,
    WEIGHTLESS,
    Elastic,
    Modulation,
    global_mean,
    window_means,
)
from hwnas.nets.shared_start import Program
from hwnas.nets.sharing import Node, Site
from hwnas.spaces.network import IMAGE

__all__ = ["Execution"]


@dataclass(frozen=True)
class Execution:
    """One pass through the steps of a program, or through a part of them.

    elastic: returns the elastic layer at a path of the supernet.
    modulations: maps paths to the scale and shift from the hypernetwork, if there is one.
    drops: rates of dropout and drop path; default: nothing is dropped.
    """

    elastic: Callable[[str], Elastic]
    modulations: Mapping[str, Modulation] = field(default_factory=dict)
    drops: Drops = field(default_factory=Drops)

    def run(
        self, steps: Program, done: int, values: dict[int, Tensor], last_read: Mapping[int, int]
    ) -> Tensor:
        """Runs the steps after the first `done` steps; returns the value of the last step.

        values: maps numbers of values to tensors: the image and what the done steps computed. Each
            step adds its own value.
        last_read: maps the number of a value to the last step that reads it. This step removes
            the value from `values`.
        """
        drops, image = self.drops, values[IMAGE]
        blocks = [bool(node and node.op.mid_channels) for _, node in steps]
        for t, (step, node) in enumerate(steps[done:], done):
            inputs = [values[value] for value in step.reads]
            for value in step.reads:
                if last_read.get(value) == t:
                    values.pop(value, None)
            if node is None:
                values[step.writes] = inputs[0] + inputs[1]
                continue
            op = node.op
            if not inputs:
                inputs = [image.new_zeros(len(image), op.in_channels, op.in_hw, op.in_hw)]
            shortcut = inputs[0] if len(inputs) == 1 else torch.cat(inputs, 1)
            if op.kind == "linear":
                shortcut = drop(shortcut, drops.dropout, drops.rng)
            found = self._main(node, shortcut)
            if op.skip:
                rate = drops.drop_path * sum(blocks[:t]) / sum(blocks)
                found = drop(found, rate, drops.rng, per_image=True)
                found = found + self._shortcut(node, shortcut)
            elif node.is_branch:
                found = drop(found, drops.drop_path, drops.rng, per_image=True)
            values[step.writes] = ACTIVATIONS[op.out_act](found)
        return values[steps[-1][0].writes]

    def _main(self, node: Node, x: Tensor) -> Tensor:
        """Output of one operator without its residual connection."""
        if node.op.kind in WEIGHTLESS:
            return WEIGHTLESS[node.op.kind](node.op, x)
        if node.op.kind == "factorized":
            x = KEEPING[node.op.act](x)
            parts = zip(node.sites, (x, x[:, :, 1:, 1:]), strict=True)
            return torch.cat([self._layer(site, part) for site, part in parts], 1)
        gated = x
        for site in node.sites:
            name = site.layer.name
            if name == "se.conv_reduce":
                gated, x = x, global_mean(x)
            if node.act_first:  # other operators can read x too, so it must not change
                x = self._layer(site, KEEPING[site.layer.act](x))
            else:
                x = ACTIVATIONS[site.layer.act](self._layer(site, x))
            if name == "se.conv_expand":
                x = gated * x
            elif site.layer.shuffles:
                x = F.channel_shuffle(x, site.layer.groups)  # 1707.01083, section 3.1
        return x

    def _shortcut(self, node: Node, x: Tensor) -> Tensor:
        """The term that the residual connection adds to the output of the operator."""
        if node.op.pools_shortcut:
            x = window_means(x, node.op.stride, node.op.stride)
        return x if node.shortcut is None else self._layer(node.shortcut, x)

    def _layer(self, site: Site, x: Tensor) -> Tensor:
        """Output of a layer and the BN after it."""
        for path in (site.path, site.bn_path):
            if path:
                x = self.elastic(path)(x, site.layer, self.modulations.get(path))
        return x
