"""Starts a supernet from the weights of a supernet, a published supernet, or one network."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from hwnas.core.errors import UserError
from hwnas.nets.extract import subnet_tensors
from hwnas.nets.pretrained_errors import another_space, other_network, shape_in_words
from hwnas.nets.pretrained_layout import (
    fit,
    has_published_names,
    nearest,
    origin_of_published,
)
from hwnas.nets.pretrained_networks import named_as_largest
from hwnas.nets.pretrained_source import Source, Weights, read_weights, source_of
from hwnas.nets.sorting import sort_channels
from hwnas.nets.subnet import build_subnet
from hwnas.nets.supernet import Supernet
from hwnas.nets.unfold import unfold
from hwnas.spaces.space import SearchSpace

__all__ = ["copy_weights", "network_with", "read_weights", "start_from", "with_head_of"]

log = logging.getLogger(__name__)

_NOT_LEARNED = ("running_mean", "running_var", "num_batches_tracked")  # BN state in static networks
_HEADS = ("classifier.linear", "classifier")  # in supernets, in static networks

Images = Iterable[Tensor]
"""Batches [B, C, H, H] of [0, 1] pixels."""


def start_from(
    supernet: Supernet,
    weights: Weights | Source,
    *,
    num_classes: int | None = None,
    images: Images | None = None,
) -> None:
    """Replaces the weights of `supernet` by given weights, and sets its `origin`.

    The weights belong to a supernet of the same space and options, to a published supernet
    (`hwnas.pretrained_list()`), or to one network that equals the largest subnet. That network can
    be a published one (space `timm`) or one trained with hwnas. Its channels are sorted by
    importance, so that smaller subnets start with the most important channels. Weights that the
    largest subnet does not use (alternative operators, kernel transforms, a hypernetwork) keep
    their initial values. If the file of a supernet has no kernel transforms, small kernels start as
    centres of the large ones.

    Args:
        supernet: with initial weights.
        weights: a file, `shipped`, `timm:NAME`, or tensors by name.
        num_classes: number of classes of `supernet`. If given, weights with another number of
            classes are accepted, and the classifier starts from small random weights. None: such
            weights are refused.
        images: training images, for networks whose BN is folded into their convolutions (`unfold`).

    Raises:
        UserError: the weights cannot be read, or belong to another space; names the first tensor
            that does not fit.
    """
    source = weights if isinstance(weights, Source) else source_of(weights)
    state = supernet.state_dict()
    is_head_free = num_classes == supernet.space.macro.num_classes
    if has_published_names(source.tensors):
        found = fit(source.tensors, supernet)
        given = dict(found.found)
        if found.only_classes_differ and is_head_free:
            given |= _new_head(state, found.misfits[0][2], source)
        elif found.misfits:
            raise other_network(source, found, supernet.space)
        copy_weights(_with_centres(given, state), state, source)
        supernet.origin = origin_of_published(source, nearest(source.tensors)[0])
        return
    if any(name in state for name in source.tensors):
        given = _with_centres(source.tensors, state)
        given = with_head_of(state, given, source) if is_head_free else given
        copy_weights(given, state, source)
    else:
        given = _named(source, supernet.space, images)
        with torch.no_grad():
            largest = dict(subnet_tensors(supernet, supernet.space.largest(), modulated=False))
            _check_views(supernet, largest)
            given = with_head_of(largest, given, source) if is_head_free else given
            copy_weights(given, largest, source)
        sort_channels(supernet)
    supernet.origin = source.origin


def network_with(
    weights: Weights | Source,
    space: SearchSpace,
    *,
    num_classes: int | None = None,
    images: Images | None = None,
) -> nn.Module:
    """The largest arch of `space` as a network with the given weights, in eval mode.

    It has the published BN statistics, and so its full accuracy. `recalibrate` needs many images
    to compute equally good ones. Arguments are those of `start_from`. A classifier for
    another number of classes starts with the random weights of `build_subnet`, scaled down.

    Raises:
        UserError: as in `start_from`, or the weights have no BN statistics.
    """
    source = weights if isinstance(weights, Source) else source_of(weights)
    network = build_subnet(space, space.largest())
    named = _named(source, space, images)
    state = network.state_dict()
    counters = {name: state[name] for name in state if name.endswith(_NOT_LEARNED[2])}
    if num_classes == space.macro.num_classes:
        named = with_head_of(state, named, source)
    for name in state:
        if name.endswith(_NOT_LEARNED[:2]) and name not in named:
            raise UserError(
                "the weights have no BN statistics",
                expected=f"the tensor {name}",
                found="no such tensor",
                where=source.where,
                fix="start a supernet from them, extract the network, and recalibrate it",
            )
    copy_weights({**counters, **named}, state, source)
    network.origin = source.origin  # type: ignore[assignment]
    return network.eval()


def _named(source: Source, space: SearchSpace, images: Images | None) -> dict[str, Tensor]:
    """Weights of one network, by their names in the static network of the largest arch."""
    if source.folded is not None:
        return unfold(source.folded, space, images)
    return named_as_largest(source.tensors, space, is_ordered=source.is_ordered)


def with_head_of(
    into: Mapping[str, Tensor], weights: Mapping[str, Tensor], source: Source
) -> dict[str, Tensor]:
    """Copies `weights`, with a new classifier if its number of classes differs from `into`."""
    for head in _HEADS:
        ours, theirs = into.get(f"{head}.weight"), weights.get(f"{head}.weight")
        if ours is None or theirs is None or theirs.ndim != 2 or len(theirs) == len(ours):
            continue
        if theirs.shape[1] == ours.shape[1]:
            return {**weights, **_new_head(into, [*theirs.shape], source)}
    return dict(weights)


def _new_head(
    into: Mapping[str, Tensor], theirs: list[int] | None, source: Source
) -> dict[str, Tensor]:
    """A classifier with the initial values in `into`, scaled to logits of the size of features.

    theirs: shape of the replaced classifier.
    """
    (head,) = (head for head in _HEADS if f"{head}.weight" in into)
    weight, bias = into[f"{head}.weight"], into[f"{head}.bias"]
    classes, features = weight.shape
    log.info(
        "%s: a new classifier for %d classes (was %d) replaces the old one, and must be trained",
        source.where,
        classes,
        (theirs or [0])[0],
    )
    scale = min(1.0, math.sqrt(classes / features))
    return {f"{head}.weight": weight * scale, f"{head}.bias": torch.zeros_like(bias)}


def _check_views(supernet: Supernet, slices: Mapping[str, Tensor]) -> None:
    """Checks that values copied into the slices arrive in the parameters."""
    owned = {parameter.untyped_storage().data_ptr() for parameter in supernet.parameters()}
    for name, tensor in slices.items():
        if tensor.untyped_storage().data_ptr() not in owned:
            raise UserError(
                "cannot start from these weights: the largest subnet does not use the largest"
                " kernel of a layer",
                expected="a largest subnet that uses the parameters of the supernet themselves",
                found=f"{name}, which is computed from them",
                where=supernet.space.id,
                fix="set kernel_transform to false, or list operators in ascending order of size",
            )


@torch.no_grad()
def copy_weights(weights: Mapping[str, Tensor], into: Mapping[str, Tensor], source: Source) -> None:
    """Copies every tensor to the tensor of the same name, after checking all names and shapes."""
    for name, tensor in into.items():
        if name not in weights or weights[name].shape != tensor.shape:
            found = shape_in_words(weights[name].shape if name in weights else None)
            raise another_space(source, name, expected=shape_in_words(tensor.shape), found=found)
    for name in weights:
        if name not in into and not name.endswith(_NOT_LEARNED):
            found = shape_in_words(weights[name].shape)
            raise another_space(source, name, expected=shape_in_words(None), found=found)
    for name, tensor in into.items():
        tensor.copy_(weights[name])


def _with_centres(weights: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Adds kernel transforms that change nothing, if `weights` has no kernel transforms."""
    transforms = [name for name in state if ".transforms." in name]
    if any(".transforms." in name for name in weights):
        transforms = []
    return {**{name: torch.eye(len(state[name])) for name in transforms}, **weights}
