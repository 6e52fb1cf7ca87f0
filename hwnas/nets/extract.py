"""Cut one arch out of the supernet as a static timm model."""

from __future__ import annotations

from torch import nn

from hwnas.nets.subnet import active_slots, build_subnet, timm_names
from hwnas.nets.supernet import Supernet, shared_names
from hwnas.spaces.arch import Arch
from hwnas.spaces.ops import layers

__all__ = ["extract"]


def extract(supernet: Supernet, arch: Arch) -> nn.Module:
    """`build_subnet` of `arch` with its own copy of the supernet's slices, in training mode.

    In training mode it computes what the supernet computes for `arch`. Its running BN statistics
    are those of a new model: `recalibrate` it before evaluating.
    """
    model = build_subnet(supernet.space, arch, seed=None).to(next(supernet.parameters()))
    state = model.state_dict()
    for slot, op in active_slots(supernet.space, arch):
        for layer in layers(op):
            names = zip(shared_names(slot, op, layer), timm_names(slot, op, layer), strict=True)
            for shared, own in names:
                if own:
                    tensors = supernet.elastic(shared).sliced(layer)
                    for kind, tensor in zip(("weight", "bias"), tensors, strict=True):
                        if tensor is not None:
                            state[f"{own}.{kind}"] = tensor
    model.load_state_dict(state)
    return model
