"""A classifier as a feature extractor, with one map per stride, in torch and for export."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from hwnas.core.errors import UserError
from hwnas.nets.pyramid import FeatureInfo, FeaturePyramid, blocks_of, levels_of
from hwnas.nets.subnet import definition_of

__all__ = ["FeaturePyramid", "WithFeatures", "features_only"]


def features_only(network: nn.Module, strides: Sequence[int] = ()) -> FeaturePyramid:
    """A feature extractor like timm's `features_only=True`, with a copy of the network's weights.

    Args:
        network: a static network, e.g. `supernet.extract(arch)` or `open_run(...).network()`.
        strides: strides of the maps, e.g. (8, 16, 32); by default all strides of the network.
            `feature_info` of the result lists channels and strides.

    Raises:
        UserError: the network has no map with such a stride, or was not made by hwnas.
    """
    _check(network)
    found = [stride for _, _, stride in levels_of(network)]
    wanted = list(strides) or found
    if any(stride not in found for stride in wanted):
        raise UserError(
            "the network has no feature maps of these strides",
            expected=f"strides among {', '.join(map(str, found))}",
            found=f"the strides {', '.join(map(str, wanted))}",
            where="strides",
        )
    pyramid = FeaturePyramid(network, [found.index(stride) for stride in wanted])
    return pyramid.train(network.training)


def _check(network: nn.Module) -> None:
    """Refuses networks without a chain of blocks."""
    if definition_of(network)["form"] == "graph":
        raise UserError(
            "cannot take feature maps from this network",
            expected="a network that is a chain of blocks",
            found="a network of cells",
            fix="export the classifier, e.g. with --formats onnx",
        )


class WithFeatures(nn.Module):
    """A network that outputs its logits, followed by the maps of all its strides.

    Raises:
        UserError: the network was not made by hwnas.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        _check(network)
        levels = levels_of(network)
        self.network, self.taken = network, [position for position, _, _ in levels]
        self.feature_info = FeatureInfo([c for _, c, _ in levels], [s for _, _, s in levels])
        self.train(network.training)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Images [B, C, H, W] -> logits [B, classes] and maps [B, channels, H', W']."""
        blocks, maps = blocks_of(self.network), []
        hooks = [
            blocks[position - 1].register_forward_hook(lambda *seen: maps.append(seen[-1]))
            if position
            else blocks[0].register_forward_pre_hook(lambda _, inputs: maps.append(inputs[0]))
            for position in self.taken
        ]
        logits: Tensor = self.network(x)
        for hook in hooks:
            hook.remove()
        return logits, *maps
