"""The weight-sharing supernet: every arch of a space runs on slices of one set of weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hwnas.core.errors import UserError
from hwnas.core.rng import stable_seed
from hwnas.nets.bn import recalibrate_in_place
from hwnas.nets.dropping import Drops
from hwnas.nets.elastic import (
    Elastic,
    ElasticBatchNorm2d,
    ElasticConv2d,
    ElasticLinear,
    Modulation,
)
from hwnas.nets.execution import Execution
from hwnas.nets.extract import Tensors, extract
from hwnas.nets.hypernet import HyperNet
from hwnas.nets.images import images_of, require_images, resize
from hwnas.nets.origin import Origin
from hwnas.nets.recurrent import recurrent_logits
from hwnas.nets.shared_start import Program, SharedStart, last_reads, n_common
from hwnas.nets.sharing import Node, plan, program, shared_shapes
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
        branches: number of depthwise kernels that are added up (`ElasticConv2d`).

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
        if (
            recalibrate_on is None or self.space.macro.reads_tokens
        ):  # networks that read tokens have no BN
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
        """Yields (slot, operator, layer, its weights, weights of the BN after it) for each layer.

        The weights of the layer are None if it is only a BN, and those of the BN if there is none.

        modulated: whether the hypernetwork and the branches are applied, as in a forward pass. If
            not, weights are views of the parameters, except for smaller kernels with a learned
            transform.

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

    def start(self, x: Tensor, archs: Sequence[Arch]) -> SharedStart | None:
        """Runs the leading operators that `archs` (of one resolution) have in common on `x`.

        Returns None if the first operators differ, if the weights differ between archs (`weak`), or
        if networks are recurrent.
        """
        if self.space.macro.reads_tokens or hasattr(self, "hypernet"):
            return None
        self._check(x, archs[0])
        programs = [self._program(arch) for arch in archs]
        if not (n := n_common(programs)):
            return None
        values = {IMAGE: x.contiguous(memory_format=torch.channels_last)}
        Execution(self.elastic).run(programs[0][:n], 0, values, last_reads(programs))
        return SharedStart.of(n, values)

    def forward(
        self,
        x: Tensor,
        arch: Arch,
        rng: torch.Generator | None = None,
        *,
        dropout: float = 0.0,
        drop_path: float = 0.0,
        start: SharedStart | None = None,
    ) -> Tensor:
        """Logits [B, classes] of `arch` on images x: [B, C, px, px] of its resolution.

        Recurrent networks: logits [B, words, L] on tokens [B, S, L], see `recurrent_net`.

        rng: generator of dropout and drop path.
        dropout: rate at the input of the classifier.
        drop_path: rate of residual blocks, which grows linearly from 0 at the first block, as in
            timm. In graphs, all terms of sums have this rate (`Network.branches`).
        start: result of `Supernet.start` on `x`; use it only with `drop_path` 0.

        Raises:
            UserError: eval mode, an arch of another space, images of another shape, or dropout
                without `rng`.
        """
        drops = Drops(rng, dropout, drop_path)
        steps = self._program(arch)
        self._check(x, arch)
        modulations = self._modulations(arch)
        if self.space.macro.reads_tokens:
            return recurrent_logits(self, x, steps, modulations, rng, dropout)
        done, values = 0, {IMAGE: x.contiguous(memory_format=torch.channels_last)}
        if start is not None:
            done, values = start.n_steps, dict(start.values)
        execution = Execution(self.elastic, modulations, drops)
        return execution.run(steps, done, values, last_reads([steps]))

    def _program(self, arch: Arch) -> Program:
        return program(self.space, arch, share_ops=self._share_ops)

    def _check(self, x: Tensor, arch: Arch) -> None:
        if not self.training:
            raise UserError(
                "the supernet has no eval mode: it keeps no running BN statistics",
                expected="training mode",
                found="eval mode",
                fix="evaluate recalibrate(extract(supernet, arch), batches)",
            )
        if not self.space.macro.reads_tokens:
            px, channels = resolution(self.space, arch), self.space.macro.in_channels
            require_images(
                x, px, channels, where=f"resolution of arch {arch.key} of {self.space.id}"
            )
