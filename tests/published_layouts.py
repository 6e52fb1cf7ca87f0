"""Published supernets with random weights: pip `ofa`'s, and AttentiveNAS's from its layout."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from itertools import accumulate

import pytest
import torch
from torch import Tensor, nn

from hwnas.spaces.arch import Arch
from hwnas.spaces.space import SearchSpace

DEPTHS = (2, 5, 6, 6, 8, 8, 2)  # of AttentiveNAS, largest; its other facts likewise
WIDTHS = (24, 32, 40, 72, 128, 216, 224)
EXPANDS = (1, 6, 6, 6, 6, 6, 6)
GATED = (2, 4, 5, 6)
STRIDES = (1, 2, 2, 2, 1, 2, 1)
FIRST_BLOCK = tuple(accumulate(DEPTHS, initial=0))


def attentive_shapes(num_classes: int = 1000) -> Iterator[tuple[str, tuple[int, ...]]]:
    """(name, shape) of every tensor of the published files, `num_batches_tracked` apart."""

    def bn(name: str, channels: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        for kind in ("weight", "bias", "running_mean", "running_var"):
            yield f"{name}.{kind}", (channels,)

    yield "first_conv.conv.conv.weight", (24, 3, 3, 3)
    yield from bn("first_conv.bn.bn", 24)
    width, number = 24, 0
    for stage, depth in enumerate(DEPTHS):
        for _ in range(depth):
            block = f"blocks.{number}.mobile_inverted_conv"
            mid = width * EXPANDS[stage]
            if stage:
                yield f"{block}.inverted_bottleneck.conv.conv.weight", (mid, width, 1, 1)
                yield from bn(f"{block}.inverted_bottleneck.bn.bn", mid)
            yield f"{block}.depth_conv.conv.conv.weight", (mid, 1, 5, 5)
            yield from bn(f"{block}.depth_conv.bn.bn", mid)
            if stage in GATED:
                less = max(8, (mid // 4 + 4) // 8 * 8)
                yield f"{block}.depth_conv.se.fc.reduce.weight", (less, mid, 1, 1)
                yield f"{block}.depth_conv.se.fc.reduce.bias", (less,)
                yield f"{block}.depth_conv.se.fc.expand.weight", (mid, less, 1, 1)
                yield f"{block}.depth_conv.se.fc.expand.bias", (mid,)
            yield f"{block}.point_linear.conv.conv.weight", (WIDTHS[stage], mid, 1, 1)
            yield from bn(f"{block}.point_linear.bn.bn", WIDTHS[stage])
            yield f"blocks.{number}.shortcut.conv.conv.weight", (WIDTHS[stage], width, 1, 1)
            width, number = WIDTHS[stage], number + 1
    yield "last_conv.final_expand_layer.conv.conv.weight", (1344, 224, 1, 1)
    yield from bn("last_conv.final_expand_layer.bn.bn", 1344)
    yield "last_conv.feature_mix_layer.conv.conv.weight", (1984, 1344, 1, 1)
    yield "classifier.linear.linear.weight", (num_classes, 1984)
    yield "classifier.linear.linear.bias", (num_classes,)


def attentive_weights(num_classes: int = 1000, seed: int = 0) -> dict[str, Tensor]:
    """Random weights in that layout."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name, shape in attentive_shapes(num_classes):
        noise = torch.randn(shape, generator=generator)
        if len(shape) == 1:
            found[name] = 0.2 * noise + ("bn.weight" in name or "running_var" in name)
        else:
            found[name] = noise / math.sqrt(math.prod(shape[1:]))
    return found


def ofa_network(which: str) -> nn.Module:
    """A supernet of pip `ofa` with random weights; skips where it is not installed."""
    if "ofa.imagenet_classification" not in sys.modules:
        pytest.importorskip(
            "ofa.imagenet_classification.elastic_nn.networks",
            reason="pip `ofa` is not installed (extra `bench`, or `make test-full`)",
        )
    from ofa.imagenet_classification.elastic_nn import networks

    build: dict[str, tuple[Callable[..., nn.Module], float]] = {
        "mobilenet_v3 1.0": (networks.OFAMobileNetV3, 1.0),
        "mobilenet_v3 1.2": (networks.OFAMobileNetV3, 1.2),
        "ofa_proxyless 1.3": (networks.OFAProxylessNASNets, 1.3),
    }
    cls, width = build[which]
    network = cls(
        dropout_rate=0,
        width_mult=width,
        ks_list=[3, 5, 7],
        expand_ratio_list=[3, 4, 6],
        depth_list=[2, 3, 4],
    )
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter += 0.1 * noise * (1 if parameter.ndim < 2 else parameter.std())
    return network.train()


def covering(space: SearchSpace, n: int) -> list[Arch]:
    """n archs in which every active choice takes each of its values."""
    archs, offset = [], {}
    for i in range(n):
        codes = []
        for choice in space.choices:
            slot, _, role = choice.name.rpartition(".")
            at = offset.setdefault(slot, len(offset))
            k = {"depth": i + at, "width": i // 4 + at, "kernel": i // 3 + at}.get(
                role, i // 3 + i // 9 + at
            )
            codes.append(k % len(choice.values))
        archs.append(space.arch(codes))
    seen = {(name, value) for arch in archs for name, value in space.view(arch).items()}
    missing = [(c.name, v) for c in space.choices for v in c.values if (c.name, v) not in seen]
    assert not missing, missing
    return archs
