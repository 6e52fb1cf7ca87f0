"""The weight-sharing supernet: every arch of a space runs on slices of one set of weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from hwnas.core.errors import UserError
from hwnas.core.rng import stable_seed
from hwnas.nets.bn import recalibrate_in_place
from hwnas.nets.dropping import drop
from hwnas.nets.elastic import (
    ACTIVATIONS,
    KEEPING,
    WEIGHTLESS,
    Elastic,
    ElasticBatchNorm2d,
    ElasticConv2d,
    ElasticLinear,
    Modulation,
    global_mean,
    window_means,
)
from hwnas.nets.extract import Tensors, extract
from hwnas.nets.hypernet import HyperNet
from hwnas.nets.images import images_of, resize
from hwnas.nets.origin import Origin
from hwnas.nets.recurrent import recurrent_logits
from hwnas.nets.sharing import Node, Site, plan, program, shared_shapes
from hwnas.spaces.arch import Arch
from hwnas.spaces.load import require_space
from hwnas.spaces.lowering import resolution
from hwnas.spaces.network import IMAGE
from hwnas.spaces.ops import Layer, OpSpec
from hwnas.spaces.space import SearchSpace

__all__ = ["Supernet", "Tensors"]


class Supernet(nn.Module):
    """All archs of `space` in one module, which stores every weight at its largest shape.

    The supernet has no active subnet: the arch is an argument of every call. It has no running BN
    statistics: BN always uses the statistics of the batch, and eval mode is refused. To evaluate an
    arch, call `recalibrate(extract(supernet, arch), batches)`. Initial weights depend on `seed` and
    not on the global generator of torch. They are the same for a space and its restrictions.
    `origin` records the source of pretrained weights (`hwnas.nets.pretrained`).

    Args:
        space: a space whose skeleton supports shared weights (`Skeleton.lacks`).
        seed: seed of the initial weights.
        kernel_transform: smaller kernels are learned maps of the centres of larger kernels
            (Once-for-all 1908.09791, section 3.2), instead of plain centres.
        share_ops: alternatives of one slot share slices, instead of having separate weights.
        weak: a hypernetwork modulates the shared weights per arch (`HyperNet`).
        branches: number of depthwise kernels that are added to one (`ElasticConv2d`).

    Raises:
        UserError: the space has no supernet.
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int,
        kernel_transform: bool = True,
        share_ops: bool = False,
        weak: bool = False,
        branches: int = 1,
    ) -> None:
        super().__init__()
        require_space(space)
        self.origin: Origin | None = None
        self.space, self._share_ops = space, share_ops
        weights, norms = shared_shapes(space, share_ops=share_ops)
        for path, shapes in weights.items():
            if shapes[0].name == "linear":
                self._attach(path, ElasticLinear(shapes))
            else:
                elastic = ElasticConv2d(
                    shapes, kernel_transform=kernel_transform, branches=branches
                )
                self._attach(path, elastic)
        for path, shapes in norms.items():
            self._attach(path, ElasticBatchNorm2d(shapes, eps=space.macro.bn_eps))
        if weak:
            bare = {path: shapes for path, shapes in weights.items() if not shapes[0].has_bn}
            channels = {
                path: max(layer.out_channels for layer in shapes)
                for path, shapes in (*norms.items(), *bare.items())
            }
            self.hypernet = HyperNet(space, channels)
        for name, module in self.named_modules():
            if isinstance(module, Elastic | HyperNet):
                stream = stable_seed(seed, "nets/supernet", name)
                module.reset_parameters(torch.Generator().manual_seed(stream))

    def _attach(self, path: str, module: Elastic) -> None:
        """Makes `module` the submodule at the dotted `path`."""
        parent: nn.Module = self
        *containers, name = path.split(".")
        for container in containers:
            if container not in parent._modules:
                parent.add_module(container, nn.Module())
            parent = parent.get_submodule(container)
        parent.add_module(name, module)

    def extract(
        self,
        arch: Arch | Sequence[int] | NDArray[np.integer],
        *,
        recalibrate_on: Iterable[Tensor | Sequence[Tensor]] | None = None,
    ) -> nn.Module:
        """The static network of `arch` with a copy of its weights.

        Args:
            arch: an arch or a row of codes.
            recalibrate_on: batches of training images [B, C, px, px] of any px, or pairs (images,
                labels). With them, the network is in eval mode and has its own BN statistics.
                Without them, it is in training mode and must not be evaluated.

        Raises:
            UserError: the arch does not belong to the space, or the batches are empty or invalid.
        """
        member = arch
        if not isinstance(member, Arch):
            member = self.space.arch(self.space.as_codes(np.asarray([member]))[0])
        network = extract(self, member)
        if recalibrate_on is None or self.space.macro.reads_tokens:  # which has no BN
            return network if recalibrate_on is None else network.eval()
        px = resolution(self.space, member)
        channels = self.space.macro.in_channels
        images = (images_of(batch, channels) for batch in recalibrate_on)
        return recalibrate_in_place(network, (resize(batch, px) for batch in images))

    def plan(self, arch: Arch) -> tuple[Node, ...]:
        """The operators of `arch`, and the paths of their weights.

        Raises:
            UserError: the arch does not belong to the space.
        """
        return plan(self.space, arch, share_ops=self._share_ops)

    def elastic(self, path: str) -> Elastic:
        """The elastic layer at one of the paths of `plan`."""
        module = self.get_submodule(path)
        assert isinstance(module, Elastic)
        return module

    def tensors(
        self, arch: Arch, *, modulated: bool = True
    ) -> Iterator[tuple[str, OpSpec, Layer, Tensors | None, Tensors | None]]:
        """Slot, operator, layer, its weights, and those of the BN after it, as used by `arch`.

        A layer that is only a BN has no weights.

        If `modulated` is False, weights are those shared by all archs, without branches: views of
        the parameters, except for smaller kernels with a learned transform.

        Raises:
            UserError: the arch does not belong to the space.
        """
        modulations = self._modulations(arch) if modulated else {}
        for node in self.plan(arch):
            for site in node.all_sites:
                weights, norm = (
                    self.elastic(path).sliced(site.layer, modulations.get(path), merged=modulated)
                    if path
                    else None
                    for path in (site.path, site.bn_path)
                )
                yield node.slot, node.op, site.layer, weights, norm

    def _modulations(self, arch: Arch) -> Mapping[str, Modulation]:
        found: Mapping[str, Modulation] = self.hypernet(arch) if hasattr(self, "hypernet") else {}
        return found

    def forward(
        self,
        x: Tensor,
        arch: Arch,
        rng: torch.Generator | None = None,
        *,
        dropout: float = 0.0,
        drop_path: float = 0.0,
    ) -> Tensor:
        """Logits [B, classes] of `arch` on images x: [B, C, px, px] of its resolution.

        Recurrent networks: logits [B, words, L] on tokens [B, S, L], see `recurrent_net`.
        `dropout` applies to the input of the classifier. `drop_path` applies to residual blocks,
        with a rate that grows linearly from 0 at the first block, as in timm, and at an equal rate
        to the terms of sums in graphs (`Network.branches`). Both draw from `rng`.

        Raises:
            UserError: eval mode, an arch of another space, images of another shape, or dropout
                without `rng`.
        """
        steps = program(self.space, arch, share_ops=self._share_ops)
        self._check(x, arch, rng, (dropout, drop_path))
        modulations = self._modulations(arch)
        if self.space.macro.reads_tokens:
            return recurrent_logits(self, x, steps, modulations, rng, dropout)
        values = {IMAGE: x.contiguous(memory_format=torch.channels_last)}
        last_read = {value: t for t, (step, _) in enumerate(steps) for value in step.reads}
        n_blocks = sum(bool(node.op.mid_channels) for _, node in steps if node)
        block = 0
        for t, (step, node) in enumerate(steps):
            inputs = [values[value] for value in step.reads]
            for value in step.reads:
                if last_read[value] == t:
                    values.pop(value, None)
            if node is None:
                values[step.writes] = inputs[0] + inputs[1]
                continue
            op = node.op
            if not inputs:
                inputs = [x.new_zeros(len(x), op.in_channels, op.in_hw, op.in_hw)]
            shortcut = inputs[0] if len(inputs) == 1 else torch.cat(inputs, 1)
            if op.kind == "linear":
                shortcut = drop(shortcut, dropout, rng)
            found = self._main(node, shortcut, modulations)
            if op.skip:
                found = drop(found, drop_path * block / n_blocks, rng, per_image=True)
                found = found + self._shortcut(node, shortcut, modulations)
            elif node.is_branch:
                found = drop(found, drop_path, rng, per_image=True)
            values[step.writes] = ACTIVATIONS[op.out_act](found)
            block += bool(op.mid_channels)
        return found

    def _main(self, node: Node, x: Tensor, modulations: Mapping[str, Modulation]) -> Tensor:
        """Output of one operator without its residual connection."""
        if node.op.kind in WEIGHTLESS:
            return WEIGHTLESS[node.op.kind](node.op, x)
        if node.op.kind == "factorized":
            x = KEEPING[node.op.act](x)
            parts = zip(node.sites, (x, x[:, :, 1:, 1:]), strict=True)
            return torch.cat([self._layer(site, part, modulations) for site, part in parts], 1)
        gated = x
        for site in node.sites:
            name = site.layer.name
            if name == "se.conv_reduce":
                gated, x = x, global_mean(x)
            if node.act_first:  # other operators can read x too, so it must not change
                x = self._layer(site, KEEPING[site.layer.act](x), modulations)
            else:
                x = ACTIVATIONS[site.layer.act](self._layer(site, x, modulations))
            if name == "se.conv_expand":
                x = gated * x
            elif site.layer.shuffles:
                x = F.channel_shuffle(x, site.layer.groups)  # 1707.01083, section 3.1
        return x

    def _shortcut(self, node: Node, x: Tensor, modulations: Mapping[str, Modulation]) -> Tensor:
        """The term that the residual connection adds to the output of the operator."""
        if node.op.pools_shortcut:
            x = window_means(x, node.op.stride, node.op.stride)
        return x if node.shortcut is None else self._layer(node.shortcut, x, modulations)

    def _layer(self, site: Site, x: Tensor, modulations: Mapping[str, Modulation]) -> Tensor:
        """Output of a layer and the BN after it."""
        for path in (site.path, site.bn_path):
            if path:
                x = self.elastic(path)(x, site.layer, modulations.get(path))
        return x

    def _check(
        self,
        x: Tensor,
        arch: Arch,
        rng: torch.Generator | None,
        rates: tuple[float, float],
    ) -> None:
        if not self.training:
            raise UserError(
                "the supernet has no eval mode: it keeps no running BN statistics",
                expected="training mode",
                fix="evaluate recalibrate(extract(supernet, arch), batches)",
            )
        px = resolution(self.space, arch)
        expected = (self.space.macro.in_channels, px, px)
        is_image = x.ndim == 4 and tuple(x.shape[1:]) == expected
        if not is_image and not self.space.macro.reads_tokens:
            raise UserError(
                "images do not have the resolution of the arch",
                expected=f"[B, {', '.join(map(str, expected))}]",
                found=list(x.shape),
                where=f"resolution of arch {arch.key} of {self.space.id}",
                fix="resize the batch to the arch's resolution first",
            )
        if not all(0 <= rate < 1 for rate in rates):
            raise UserError("dropout and drop_path must be in [0, 1)", found=rates)
        if any(rates) and rng is None:
            raise UserError("dropout and drop_path need a torch.Generator", found="rng=None")
