"""Maps tensor names of published supernets (Once-for-all, AttentiveNAS, AlphaNet) to ours.

Both families number blocks across stages and use the same names for the layers of a block. Files
differ in repeated words (`conv.conv`), in the name of a block's main branch, and in a prefix
`module.`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import TypeAlias

import torch
from torch import Tensor

from hwnas.core.store import file_hash
from hwnas.nets.origin import Origin
from hwnas.nets.pretrained_list import NETWORKS, Network
from hwnas.nets.pretrained_source import Source
from hwnas.nets.supernet import Supernet
from hwnas.spaces.load import build_space
from hwnas.spaces.space import SearchSpace

__all__ = ["Fit", "fit", "has_published_names", "nearest", "origin_of_published", "space_of"]

CLASSIFIER = "classifier.linear"
_LAYERS = {
    "conv_pw": "inverted_bottleneck",
    "conv_dw": "depth_conv",
    "conv_pwl": "point_linear",
    "conv_shortcut": "shortcut",
}
_GATE = {"se.conv_reduce": "depth_conv.se.fc.reduce", "se.conv_expand": "depth_conv.se.fc.expand"}
_BLOCK = re.compile(r"stage(\d+)\.block(\d+)\.(.+)")
_UNLEARNED = ("running_mean", "running_var", "num_batches_tracked")
_UNUSED = re.compile(r"blocks\.\d+\.shortcut\.conv\.weight")  # of blocks with equal widths


Misfit: TypeAlias = tuple[str, list[int] | None, list[int] | None]
"""Published name of a tensor, the expected shape, and the shape found (None: missing)."""


@dataclass(frozen=True)
class Fit:
    """How well published weights fit a supernet.

    found: maps names in the supernet to the tensors that fit.
    misfits: tensors that do not fit, or are missing.
    """

    found: Mapping[str, Tensor]
    misfits: tuple[Misfit, ...]

    @property
    def only_classes_differ(self) -> bool:
        """Whether the weights fit except for the number of classes."""
        return bool(self.misfits) and all(
            name.startswith(CLASSIFIER) and found is not None for name, _, found in self.misfits
        )


def has_published_names(names: Iterable[str]) -> bool:
    """Whether tensors have names as in files of Once-for-all, AttentiveNAS or AlphaNet."""
    found = {plain for name in names if (plain := _plain(name)) is not None}
    return "first_conv.conv.weight" in found and any(name.startswith("blocks.") for name in found)


def fit(weights: Mapping[str, Tensor], supernet: Supernet) -> Fit:
    """Compares weights with published names to a supernet.

    The weights must have all kernel transforms or none. Without them, smaller kernels are centres
    of the larger ones.
    """
    theirs: dict[str, Tensor] = {}
    found: dict[str, Tensor] = {}
    misfits: list[Misfit] = []
    for name, tensor in weights.items():
        if (plain := _plain(name)) in theirs:
            misfits.append((name, None, [*tensor.shape]))
        elif plain is not None:
            theirs[plain] = tensor
    state = supernet.state_dict()
    has_transforms = any(name.endswith("_matrix") for name in theirs)
    names = _names(state)
    for ours, value in state.items():
        name = names[ours]
        given = theirs.pop(name, None)
        if given is None and name.endswith("_matrix") and not has_transforms:
            continue
        if given is None or given.shape != value.shape:
            misfits.append((name, [*value.shape], None if given is None else [*given.shape]))
        else:
            found[ours] = given
    more = [name for name in theirs if not _UNUSED.fullmatch(name)]
    misfits += [(name, None, list(theirs[name].shape)) for name in more]
    return Fit(found, tuple(misfits))


def nearest(weights: Mapping[str, Tensor]) -> tuple[Network, Fit]:
    """The published network that most tensors fit, ignoring the number of classes."""
    head = next((t for n, t in weights.items() if _plain(n) == f"{CLASSIFIER}.weight"), None)
    num_classes = head.shape[0] if head is not None and head.ndim == 2 and len(head) else 1000
    best = None
    for network in NETWORKS:
        found = network, fit(weights, _shapes(network, num_classes))
        if not found[1].misfits:
            return found
        if best is None or len(found[1].found) > len(best[1].found):
            best = found
    assert best is not None
    return best


def space_of(network: Network, num_classes: int) -> SearchSpace:
    """The space of a published network, with all its resolutions."""
    return build_space(network.space, network.settings, num_classes=num_classes)


def _shapes(network: Network, num_classes: int) -> Supernet:
    """The supernet of a published network, without memory for its weights."""
    return _shapes_of(NETWORKS.index(network), min(num_classes, 1 << 20))


@lru_cache(maxsize=8)
def _shapes_of(number: int, num_classes: int) -> Supernet:
    with torch.device("meta"):
        return Supernet(space_of(NETWORKS[number], num_classes), seed=0)


def _plain(name: str) -> str | None:
    """A published name without the parts that differ between files; None if not a parameter."""
    words = name.removeprefix("module.").split(".")
    if words[-1] in _UNLEARNED or "bn_tracking" in words:
        return None
    words = [word for word, _ in groupby(words) if word != "last_conv"]
    if words[0] == "blocks" and words[2:3] in (["conv"], ["mobile_inverted_conv"]):
        del words[2]
    return ".".join(words)


def _names(state: Iterable[str]) -> dict[str, str]:
    """Normalised published name of every tensor of a supernet; "" if it has none."""
    state = list(state)
    parsed = {name: _BLOCK.fullmatch(name) for name in state}
    blocks = sorted({(int(m[1]), int(m[2])) for m in parsed.values() if m})
    number = {block: n for n, block in enumerate(blocks)}
    head = "final_expand_layer" if any(n.startswith("feature.") for n in state) else None
    outside = {
        "stem": "first_conv",
        "head": head or "feature_mix_layer",
        "feature": "feature_mix_layer",
    }
    found = {}
    for name, match in parsed.items():
        slot, _, rest = name.partition(".")
        if match:
            part = _in_block(match[3])
            found[name] = part and f"blocks.{number[int(match[1]), int(match[2])]}.{part}"
        elif slot in outside:
            found[name] = f"{outside[slot]}.{rest.replace('conv_bn.', 'bn.')}"
        else:
            found[name] = name if name.startswith(CLASSIFIER) else ""
    return found


def _in_block(name: str) -> str:
    """`conv_dw_bn.weight` -> `depth_conv.bn.weight`."""
    layer, _, kind = name.rpartition(".")
    if layer in _GATE:
        return f"{_GATE[layer]}.{kind}"
    if layer.endswith(".transforms"):
        return f"{_LAYERS.get(layer.removesuffix('.transforms'), '')}.conv.{kind}_matrix"
    base = layer.removesuffix("_bn")
    if base not in _LAYERS:
        return ""
    return f"{_LAYERS[base]}.{'conv' if base == layer else 'bn'}.{kind}"


def origin_of_published(
    source: Source, network: Network, licence: str | None = None
) -> Origin | None:
    """Origin of a file with the weights of a published supernet; None for tensors in memory."""
    if source.file is None:
        return None
    return Origin(
        network=network.name,
        licence=licence or network.licence,
        home=network.home,
        file=source.file.name,
        sha256=file_hash(source.file),
        mean=network.mean,
        std=network.std,
    )
