"""Extracts one arch from the supernet as a static network."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor, nn

from hwnas.nets.origin import origin_of
from hwnas.nets.subnet import build_subnet, names_in, placed_slots
from hwnas.spaces.arch import Arch
from hwnas.spaces.ops import Layer, OpSpec
from hwnas.spaces.space import SearchSpace

__all__ = ["SharedWeights", "Tensors", "extract", "subnet_tensors"]


Tensors = tuple[Tensor, Tensor | None]
"""Weight and bias of a layer, or scale and shift of a BN."""


class SharedWeights(Protocol):
    """Interface of the object that archs are extracted from, usually a `Supernet`."""

    @property
    def space(self) -> SearchSpace:
        """The space of the archs that can be extracted."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """All weights."""
        ...

    def tensors(
        self, arch: Arch, *, modulated: bool = True
    ) -> Iterator[tuple[str, OpSpec, Layer, Tensors | None, Tensors | None]]:
        """See `Supernet.tensors`."""
        ...


@torch.no_grad()
def extract(supernet: SharedWeights, arch: Arch) -> nn.Module:
    """The static network of `arch` with its own copy of the supernet's weights, in training mode.

    In training mode it computes the same as the supernet does for `arch`. Its running BN statistics
    are those of a new model, so call `recalibrate` before an evaluation.
    """
    model = build_subnet(supernet.space, arch, seed=None)
    like = next(supernet.parameters())
    if (like.device.type, like.dtype) != ("cpu", torch.float32):
        model = model.to(like)
    model.origin = origin_of(supernet)  # type: ignore[assignment]
    own = dict(model.named_parameters())
    for name, tensor in subnet_tensors(supernet, arch):
        own[name].copy_(tensor)
    return model


def subnet_tensors(
    supernet: SharedWeights, arch: Arch, *, modulated: bool = True
) -> Iterator[tuple[str, Tensor]]:
    """Yields (name, tensor) for each parameter of the static network of `arch`.

    The names are those in `build_subnet`, and the tensors come from `Supernet.tensors`.
    """
    names = names_in(supernet.space)
    places = {slot: place for slot, place, _ in placed_slots(supernet.space, arch)}
    for slot, op, layer, *parts in supernet.tensors(arch, modulated=modulated):
        for name, tensors in zip(names(places[slot], op, layer), parts, strict=True):
            if name and tensors is not None:
                for kind, tensor in zip(("weight", "bias"), tensors, strict=True):
                    if tensor is not None:
                        yield f"{name}.{kind}", tensor
