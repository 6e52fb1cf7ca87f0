"""Static modules: `build_subnet` builds one arch as a plain network of timm or torch.

JSON values describe the network (`subnet_definition`). If timm's blocks can express every operator,
the network is a timm model. Otherwise (residual connections with a 1x1 convolution, channel
shuffle, an activation after the residual add) it is plain torch with the same parameter names. A
network that is not a chain is plain torch, too (`graph_net`), with the slots as modules.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from hwnas.core.errors import UserError
from hwnas.nets.assembly import FORMS, assemble, with_fast_layers
from hwnas.nets.definition import define, define_graph, graph_names, places, timm_names
from hwnas.spaces.arch import Arch
from hwnas.spaces.lowering import lower_named
from hwnas.spaces.ops import Layer, OpSpec
from hwnas.spaces.space import SearchSpace

__all__ = [
    "active_slots",
    "build_from_definition",
    "build_subnet",
    "computes_as_defined",
    "definition_of",
    "input_shape_of",
    "names_in",
    "placed_slots",
    "subnet_definition",
    "timm_names",
]

NOISE = 1e-3  # of the largest logit: torch's rounding in layers with other kernels


def active_slots(space: SearchSpace, arch: Arch) -> Iterator[tuple[str, OpSpec]]:
    """(slot name, operator) of every operator that a static network of `arch` has, in order.

    Operators on no path from the image to the logits are left out (`Network.live`).

    Raises:
        UserError: the arch does not belong to the space, or the space has no static networks.
    """
    space.macro.require("static net", space=space.name)
    network, slots = lower_named(space, arch)
    for step in network.program:
        if step.op is not None:
            yield slots[step.position], step.op


def names_in(space: SearchSpace) -> Callable[[str, OpSpec, Layer], tuple[str, str]]:
    """Returns a function (place, operator, layer) -> paths of the layer and of the BN after it.

    The paths are those in static networks of the space; see `timm_names`.
    """
    return timm_names if space.macro.is_chain else graph_names


def placed_slots(space: SearchSpace, arch: Arch) -> list[tuple[str, str, OpSpec]]:
    """Like `active_slots`, but lists (slot, place, operator).

    The function `names_in(space)` takes a place; see `places`.
    """
    slots = list(active_slots(space, arch))
    names = [slot for slot, _ in slots]
    found = places(names) if space.macro.is_chain else names
    return [(slot, place, op) for (slot, op), place in zip(slots, found, strict=True)]


def subnet_definition(
    space: SearchSpace, arch: Arch, *, bn_eps: float | None = None
) -> dict[str, Any]:
    """Describes the network of `arch` as JSON values, the input of `build_from_definition`.

    bn_eps: epsilon of BN; None: that of the space.
    """
    eps = space.macro.bn_eps if bn_eps is None else bn_eps
    name = f"hwnas_{arch.key}"
    if space.macro.is_chain:
        return define(list(active_slots(space, arch)), name=name, bn_eps=eps)
    space.macro.require("static net", space=space.name)
    at = space.macro.auxiliary_slot
    return define_graph(*lower_named(space, arch), name=name, bn_eps=eps, auxiliary=at)


def build_from_definition(definition: dict[str, Any], *, seed: int | None = 0) -> nn.Module:
    """The network of a `subnet_definition`: [B, C, px, px] -> logits [B, classes].

    Initialised as in timm, from `seed` (None: weights stay uninitialised). The global generator of
    torch does not change. Depthwise and 1x1 layers are replaced by layers that compute the same,
    have the same parameter names, and have a faster backward pass.
    """
    if seed is None:
        model = assemble(definition)
    else:
        build = FORMS[definition["form"]]
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # only the CPU generator
            model = with_fast_layers(build(definition))
    model.definition = definition  # type: ignore[assignment]
    return model


def definition_of(model: nn.Module) -> dict[str, Any]:
    """The definition from which `model`, or the network that it is a copy of, was built.

    Raises:
        UserError: the model was not built by `build_subnet` or `build_from_definition`.
    """
    definition = getattr(model, "definition", None)
    if not isinstance(definition, dict):
        raise UserError(
            "the architecture of a network is unknown, because hwnas did not build the network",
            expected="a network from hwnas.nets.subnet or hwnas.nets.extract",
            found=f"an object of the class {type(model).__name__}",
            where="the network",
            fix="give a network as `supernet.extract(arch)` returns it; to export another network,"
            " choose a format that takes any, such as onnx or pt2",
        )
    return definition


def computes_as_defined(model: nn.Module) -> bool:
    """Whether `model` computes the same as a network built from its definition and its weights.

    The outputs differ if layers of `model` were replaced after it was built. They are compared on
    one random image. For recurrent networks, only the names and shapes of parameters are compared.
    """
    definition = definition_of(model)
    rebuilt = build_from_definition(definition, seed=None).eval()
    try:
        rebuilt.load_state_dict(model.state_dict())
    except RuntimeError:  # other layers
        return False
    if definition["form"] == "recurrent":  # reads tokens
        return True
    x = torch.randn(1, *input_shape_of(model), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = copy.deepcopy(model).cpu().eval()(x)
        most = NOISE * float(expected.nan_to_num().abs().max())
        return torch.allclose(rebuilt(x), expected, rtol=0, atol=most, equal_nan=True)


def input_shape_of(model: nn.Module) -> tuple[int, int, int]:
    """[C, H, W] of the images that `model` was built for, from its definition.

    Raises:
        UserError: the model has no definition, see `definition_of`.
    """
    definition = definition_of(model)
    px, form = int(definition["resolution"]), definition["form"]
    if form in ("graph", "recurrent"):
        return int(definition["in_channels"]), px, px
    stem = definition["args"]["in_chans"] if form == "timm" else definition["stem"]["in_channels"]
    return int(stem), px, px


def build_subnet(space: SearchSpace, arch: Arch, *, seed: int | None = 0) -> nn.Module:
    """The static network of `arch`, with exactly the layers of `lower()` and symmetric padding.

    It is a timm `EfficientNet` or `MobileNetV3` if timm's blocks can express it, else a
    `plain_net.Network`, or a `graph_net.GraphNetwork` if it is not a chain; see
    `build_from_definition`.
    """
    return build_from_definition(subnet_definition(space, arch), seed=seed)
