"""Restores the BN of a network whose BN is folded into its convolutions.

A folded convolution computes y = W x + b. Let m and v be mean and variance of W x over images. Then
W x followed by BN with mean m, variance v, scale sqrt(v + eps) and shift m + b computes the same y.
m and v are measured by running images through the folded network.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from hwnas.core.command import command_line
from hwnas.core.errors import UserError
from hwnas.nets.folded import Folded, FoldedLayer
from hwnas.nets.images import normalise, resize
from hwnas.nets.subnet import build_subnet, names_in, placed_slots
from hwnas.spaces.lowering import resolution
from hwnas.spaces.ops import layers
from hwnas.spaces.space import SearchSpace

__all__ = ["unfold"]

Moments = tuple[Tensor, Tensor]
"""Mean and variance per channel."""


@torch.no_grad()
def unfold(
    network: Folded, space: SearchSpace, images: Iterable[Tensor] | None = None
) -> dict[str, Tensor]:
    """The state dict of the largest arch of `space` with the weights of `network`.

    The classifier is copied from `network`, with its number of classes.

    Args:
        network: its layers have the shapes of the layers of the largest arch.
        space: the space of the network.
        images: batches [B, C, H, H] of training images, pixels in [0, 1], for the BN statistics.
            Not used if `network` has statistics.

    Raises:
        UserError: a layer does not fit, or statistics are unknown and there are no images.
    """
    arch = space.largest()
    sites = [
        names_in(space)(place, op, layer)
        for _, place, op in placed_slots(space, arch)
        for layer in layers(op)
    ]
    model = build_subnet(space, arch, seed=None).eval()
    state = model.state_dict()
    _check(network, [(name, state[f"{name}.weight"]) for name, _ in sites])
    classifier = sites[-1][0]
    norms: dict[str, FoldedLayer] = {}
    for (name, bn), layer in zip(sites, network.layers, strict=True):
        if name != classifier:
            state[f"{name}.weight"] = layer.weight
            if bn:
                norms[bn] = layer
            else:
                state[f"{name}.bias"] = layer.bias
    moments = _known(norms)
    if moments is None:
        _fold_into_shift(model, norms, state)
        moments = _measured(model, norms, _normalised(network, images, resolution(space, arch)))
    for bn, layer in norms.items():
        mean, var = moments[bn]
        eps = _bn(model, bn).eps
        state |= {
            f"{bn}.running_mean": mean,
            f"{bn}.running_var": var,
            f"{bn}.weight": (var + eps).sqrt(),
            f"{bn}.bias": mean + layer.bias,
        }
    last = network.layers[-1]
    state |= {f"{classifier}.weight": last.weight.flatten(1), f"{classifier}.bias": last.bias}
    return state


def _check(network: Folded, expected: list[tuple[str, Tensor]]) -> None:
    """Refuses a network with other layers; the number of classes may differ."""
    found = [layer.weight for layer in network.layers]
    for number in range(max(len(found), len(expected))):
        name, ours = expected[number] if number < len(expected) else (f"layer {number}", None)
        theirs = found[number] if number < len(found) else None
        is_last = number == len(expected) - 1 == len(found) - 1
        if (
            ours is None
            or theirs is None
            or (ours.shape[1] != theirs.shape[1] if is_last else ours.shape != theirs.shape)
        ):
            raise UserError(
                f"the weights belong to another network: {name} does not fit",
                expected=_weights(ours, is_last=is_last),
                found=_weights(theirs, is_last=is_last),
                where=f"{network.name}, layer {number} (counted from 0, only layers with weights)",
                fix="use the space of this network: `hwnas pretrained list`",
            )


def _weights(weights: Tensor | None, *, is_last: bool) -> str:
    if weights is None:
        return "no further layer"
    if is_last:
        return f"weights with {weights.shape[1]} inputs"
    return f"weights of shape {list(weights.shape)}"


def _known(norms: dict[str, FoldedLayer]) -> dict[str, Moments] | None:
    """The statistics in the file; None if any are missing."""
    found = {
        bn: (layer.mean, layer.var)
        for bn, layer in norms.items()
        if layer.mean is not None and layer.var is not None
    }
    return found if len(found) == len(norms) else None


def _fold_into_shift(
    model: nn.Module, norms: dict[str, FoldedLayer], state: dict[str, Tensor]
) -> None:
    """Makes `model` compute the folded network: BN only adds the bias."""
    plain = dict(state)
    for bn, layer in norms.items():
        ones = torch.ones_like(layer.bias)
        plain |= {
            f"{bn}.weight": ones,
            f"{bn}.bias": layer.bias,
            f"{bn}.running_mean": 0 * ones,
            f"{bn}.running_var": ones - _bn(model, bn).eps,
        }
    model.load_state_dict(plain)


def _measured(
    model: nn.Module, norms: dict[str, FoldedLayer], batches: Iterator[Tensor]
) -> dict[str, Moments]:
    """Mean and variance of the input of every BN, over all pixels of all images."""
    totals = {
        bn: torch.zeros(3, len(layer.bias), dtype=torch.double) for bn, layer in norms.items()
    }
    with _watched(model, totals):
        for batch in batches:
            model(batch)
    found = {}
    for bn, (total, squares, n) in totals.items():
        mean = total / n
        found[bn] = mean.float(), (squares / n - mean * mean).clamp(min=0).float()
    return found


@contextmanager
def _watched(model: nn.Module, totals: dict[str, Tensor]) -> Iterator[None]:
    """Within this context, BN layers add values, squares and their number to `totals`."""

    def watch(bn: str) -> torch.utils.hooks.RemovableHandle:
        def add(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            x = inputs[0].double()
            n = torch.full((x.shape[1],), x.numel() / x.shape[1], dtype=torch.double)
            totals[bn] += torch.stack([x.sum((0, 2, 3)), (x * x).sum((0, 2, 3)), n])

        return _bn(model, bn).register_forward_pre_hook(add)

    handles = [watch(name) for name in totals]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _normalised(network: Folded, images: Iterable[Tensor] | None, px: int) -> Iterator[Tensor]:
    """Images at `px`, normalised as in the training of the network.

    Raises:
        UserError: there are no images.
    """
    is_empty = True
    for batch in images or ():
        is_empty = False
        yield resize(normalise(batch, network.mean, network.std), px)
    if is_empty:
        raise UserError(
            "the batch norm of these weights is folded into their convolutions, so images are"
            " needed to restore it",
            expected="training images",
            found="none",
            where=network.name,
            fix=command_line(
                *("pretrained", "import", f"{network.name}.npz"),
                *("--images", "DIR", "--out", "W.safetensors"),
            )
            + ", or images=... in Python",
        )


def _bn(model: nn.Module, name: str) -> nn.BatchNorm2d:
    found = model.get_submodule(name)
    assert isinstance(found, nn.BatchNorm2d)
    return found
