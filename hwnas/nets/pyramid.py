"""Feature maps of a network at every stride, for detection and segmentation; needs only torch."""

from collections.abc import Sequence
from copy import deepcopy

from torch import Tensor, nn


class FeatureInfo:
    """Channels and strides of the maps, finest first; the interface is that of timm."""

    def __init__(self, channels: Sequence[int], reductions: Sequence[int]) -> None:
        self._channels, self._reductions = list(channels), list(reductions)

    def channels(self) -> list[int]:
        """Channels of every map."""
        return self._channels

    def reduction(self) -> list[int]:
        """Stride of every map: image pixels per map pixel along each axis."""
        return self._reductions


class FeaturePyramid(nn.Module):
    """A network without its head: images [B, C, H, W] -> maps [B, channels, H', W'], finest first.

    Of all maps with the same stride, it returns the last one, as timm's `features_only` does. Its
    weights are copies, named as in the network. `out_indices` selects maps; None selects all.
    """

    def __init__(self, network: nn.Module, out_indices: Sequence[int] | None = None) -> None:
        super().__init__()
        children, levels = dict(network.named_children()), levels_of(network)
        if out_indices is not None:
            levels = [levels[i] for i in sorted({range(len(levels))[i] for i in out_indices})]
        self.taken = [position for position, _, _ in levels]
        self.feature_info = FeatureInfo([c for _, c, _ in levels], [r for _, _, r in levels])
        self.before = list(children)[: list(children).index("blocks")]
        for name in self.before:
            self.add_module(name, deepcopy(children[name]))
        self.blocks, left = nn.Sequential(), self.taken[-1]
        for stage in children["blocks"].children():
            if left > 0:
                self.blocks.append(nn.Sequential(*map(deepcopy, list(stage.children())[:left])))
            left -= len(list(stage.children()))

    def forward(self, x: Tensor) -> list[Tensor]:
        """The selected maps, finest first."""
        for name in self.before:
            x = getattr(self, name)(x)
        maps = [x] if 0 in self.taken else []
        for position, block in enumerate(blocks_of(self), start=1):
            x = block(x)
            if position in self.taken:
                maps.append(x)
        return maps


def blocks_of(network: nn.Module) -> list[nn.Module]:
    """The blocks of all stages, in order."""
    stages = network.get_submodule("blocks").children()
    return [block for stage in stages for block in stage.children()]


def levels_of(network: nn.Module) -> list[tuple[int, int, int]]:
    """Lists (position, channels, stride) of the last map with each stride, finest first.

    Position n is after block n; position 0 is before the first block.
    """
    levels: dict[int, tuple[int, int, int]] = {}
    stride = 1
    for position, part in enumerate([network, *blocks_of(network)]):
        inside = part.named_modules() if position else part.named_children()
        main = [
            layer
            for name, layer in inside
            if isinstance(layer, nn.Conv2d | nn.MaxPool2d)
            and name not in ("conv_shortcut", "conv_head")
            and not name.startswith("se.")
        ]
        channels = [layer.out_channels for layer in main if isinstance(layer, nn.Conv2d)]
        for layer in main:
            found = layer.stride
            stride *= found if isinstance(found, int) else found[0]
        levels[stride] = position, channels[-1], stride
    return list(levels.values())
