"""The weight-sharing supernet: every arch of a space runs on slices of one set of weights."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import torch
from torch import Tensor, nn

from hwnas.core.errors import UserError
from hwnas.core.rng import stable_seed
from hwnas.nets.elastic import (
    ACTIVATIONS,
    Elastic,
    ElasticBatchNorm2d,
    ElasticConv2d,
    ElasticLinear,
    global_mean,
)
from hwnas.nets.subnet import active_slots, timm_names
from hwnas.spaces.arch import Arch
from hwnas.spaces.index import slot_ops
from hwnas.spaces.lowering import slot_names
from hwnas.spaces.ops import Layer, OpSpec, layers
from hwnas.spaces.space import SearchSpace

__all__ = ["Supernet", "shared_names"]


def shared_names(slot: str, op: OpSpec, layer: Layer) -> tuple[str, str]:
    """Paths in the supernet of a layer and of the BN after it ("" if none).

    Those of timm's inverted residual for all blocks, so that a slot that chooses between expansion
    1 (`dsconv`) and larger ones shares its depthwise and its projection weights.
    """
    if op.kind == "dsconv":
        op = replace(op, kind="mbconv")
        layer = replace(layer, name="conv_pwl") if layer.name == "conv_pw" else layer
    return timm_names(slot, op, layer)


class Supernet(nn.Module):
    """All archs of `space` in one module, at the largest shape of every weight.

    There is no active subnet and no running BN statistics: the arch is an argument of every call,
    BN always uses the statistics of the batch, and eval mode is refused. To evaluate an arch,
    `recalibrate(extract(supernet, arch), batches)`. Weights do not depend on torch's global
    generator but on `seed`, and are the same for a space and its restrictions.
    """

    def __init__(self, space: SearchSpace, *, seed: int, kernel_transform: bool = True) -> None:
        super().__init__()
        self.space = space
        shapes: dict[str, list[Layer]] = defaultdict(list)
        bn_shapes: dict[str, list[Layer]] = defaultdict(list)
        for slot, ops in zip(slot_names(space), slot_ops(space), strict=True):
            for op in ops:
                for layer in layers(op):
                    name, bn = shared_names(slot, op, layer)
                    shapes[name].append(layer)
                    if bn:
                        bn_shapes[bn].append(layer)
        for name, wanted in shapes.items():
            if wanted[0].name == "linear":
                self._attach(name, ElasticLinear(wanted))
            else:
                self._attach(name, ElasticConv2d(wanted, kernel_transform=kernel_transform))
        for name, wanted in bn_shapes.items():
            self._attach(name, ElasticBatchNorm2d(wanted))
        for name, module in self.named_modules():
            if isinstance(module, Elastic):
                stream = stable_seed(seed, "nets/supernet", name)
                module.reset_parameters(torch.Generator().manual_seed(stream))

    def _attach(self, path: str, module: Elastic) -> None:
        """Make `module` the submodule at the dotted `path`."""
        parent: nn.Module = self
        *containers, name = path.split(".")
        for container in containers:
            if container not in parent._modules:
                parent.add_module(container, nn.Module())
            parent = parent.get_submodule(container)
        parent.add_module(name, module)

    def elastic(self, path: str) -> Elastic:
        """The elastic layer at one of the paths of `shared_names`."""
        module = self.get_submodule(path)
        assert isinstance(module, Elastic)
        return module

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

        `dropout` acts on the pooled features, `drop_path` on residual blocks with a rate that
        grows linearly from 0 at the first block, as in timm; both draw from `rng`.

        Raises:
            UserError: eval mode, an arch of another space, images of another shape, or noise
                without `rng`.
        """
        ops = list(active_slots(self.space, arch))
        self._check(x, ops[0][1], rng, (dropout, drop_path))
        x = x.contiguous(memory_format=torch.channels_last)
        n_blocks = sum(bool(op.mid_channels) for _, op in ops)
        block = 0
        for slot, op in ops:
            if op.kind == "pool":
                x = _drop(global_mean(x), dropout, rng)
                continue
            shortcut = x
            x = self._run(slot, op, x)
            if op.skip:
                x = _drop(x, drop_path * block / n_blocks, rng, per_image=True) + shortcut
            block += bool(op.mid_channels)
        return x

    def _run(self, slot: str, op: OpSpec, x: Tensor) -> Tensor:
        """One operator without its residual connection."""
        gated = x
        for layer in layers(op):
            if layer.name == "se.conv_reduce":
                gated, x = x, x.mean((2, 3), keepdim=True)
            name, bn = shared_names(slot, op, layer)
            x = self.elastic(name)(x, layer)
            if bn:
                x = self.elastic(bn)(x, layer)
            x = ACTIVATIONS[layer.act](x)
            if layer.name == "se.conv_expand":
                x = gated * x
        return x

    def _check(
        self, x: Tensor, stem: OpSpec, rng: torch.Generator | None, rates: tuple[float, float]
    ) -> None:
        if not self.training:
            raise UserError(
                "the supernet has no eval mode: it keeps no running BN statistics",
                expected="training mode",
                fix="evaluate recalibrate(extract(supernet, arch), batches)",
            )
        expected = (stem.in_channels, stem.in_hw, stem.in_hw)
        if x.ndim != 4 or tuple(x.shape[1:]) != expected:
            raise UserError(
                "images do not have the resolution of the arch",
                expected=f"[B, {', '.join(map(str, expected))}]",
                found=list(x.shape),
                fix="resize the batch to the arch's resolution first",
            )
        if not all(0 <= rate < 1 for rate in rates):
            raise UserError("dropout and drop_path are in [0, 1)", found=rates)
        if any(rates) and rng is None:
            raise UserError("dropout and drop_path need a torch.Generator", found="rng=None")


def _drop(
    x: Tensor, rate: float, rng: torch.Generator | None, *, per_image: bool = False
) -> Tensor:
    """Zero values (or whole images) with probability `rate`, scaling the rest by 1 / (1 - rate)."""
    if not rate or rng is None:
        return x
    shape = (x.shape[0], 1, 1, 1) if per_image else x.shape
    kept = torch.rand(shape, generator=rng, device=rng.device) >= rate
    return x * (kept.to(x.device, x.dtype) / (1 - rate))
