"""Adds drop path, an auxiliary classifier and locked dropout to one network, for training."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hwnas.core.errors import UserError
from hwnas.core.rng import stable_seed
from hwnas.nets.dropping import drop
from hwnas.nets.recurrent_net import RecurrentNetwork
from hwnas.nets.subnet import definition_of
from hwnas.training.sections import FinetuneConfig

__all__ = ["AuxiliaryHead", "Regularisation"]

WIDTHS = 128, 768  # `AuxiliaryHeadCIFAR` in the code of DARTS
WINDOW, STRIDE, LEAST_PX = 5, 3, 8  # pooling to 2 px from 8 px


class AuxiliaryHead(nn.Module):
    """The second classifier of DARTS (1806.09055, section 3.2): [B, C, px, px] -> [B, classes]."""

    def __init__(self, channels: int, px: int, num_classes: int) -> None:
        super().__init__()
        pool = nn.AvgPool2d(WINDOW, STRIDE, count_include_pad=False)
        first, second = WIDTHS
        self.layers = nn.Sequential(
            nn.ReLU(),
            pool if px >= LEAST_PX else nn.AdaptiveAvgPool2d(2),
            nn.Conv2d(channels, first, 1, bias=False),
            nn.BatchNorm2d(first),
            nn.ReLU(),
            nn.Conv2d(first, second, 2, bias=False),
            nn.BatchNorm2d(second),
            nn.ReLU(),
        )
        self.classifier = nn.Linear(second, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Output of a cell [B, C, px, px] -> logits [B, classes]."""
        logits: Tensor = self.classifier(self.layers(x).mean((2, 3)))
        return logits


class Regularisation:
    """Adds `drop_path`, `auxiliary` and `dropout` of a recipe to a network, until `remove`.

    The auxiliary classifier is a submodule of the network, so that it is optimised and stored with
    it. Random numbers depend only on (seed, step).

    Args:
        network: in training mode; hooks are added to it.
        config: the recipe.
        seed: seed of the drops and of the weights of the classifier.
        n_steps: steps of the whole training.

    Raises:
        UserError: the recipe has an auxiliary classifier, but the network has no place for it; or
            it has dropout, but the network is not recurrent.
    """

    def __init__(
        self, network: nn.Module, config: FinetuneConfig, *, seed: int, n_steps: int
    ) -> None:
        self._network, self._config = network, config
        self._seed, self._n_steps, self._rate = seed, max(1, n_steps), 0.0
        self._random: torch.Generator | None = None
        self._handles: list[torch.utils.hooks.RemovableHandle] = []
        self._map: Tensor | None = None
        if config.drop_path:
            for branch in _branches(network):
                self._handles.append(branch.register_forward_hook(self._drop))
        if config.auxiliary:
            self._add_head()
        if config.dropout:
            if not isinstance(network, RecurrentNetwork):
                raise UserError(
                    "the recipe has dropout, which is only for recurrent networks",
                    expected="dropout 0",
                    found=f"dropout {config.dropout}",
                    where="`dropout` of the recipe",
                )
            network.dropout = config.dropout

    def _add_head(self) -> None:
        definition = definition_of(self._network)
        slot = definition.get("auxiliary")
        if not slot:
            raise UserError(
                "the network has no place for an auxiliary classifier",
                expected="a network of the space darts, or auxiliary 0",
                found=f"auxiliary {self._config.auxiliary}",
                where="`auxiliary` of the recipe",
            )
        op = definition["ops"][slot]
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(stable_seed(self._seed, "train/auxiliary"))
            head = AuxiliaryHead(op["out_channels"], op["out_hw"], definition["num_classes"])
        like = next(self._network.parameters())
        self._network.auxiliary_head = head.to(like)
        self._handles.append(
            self._network.get_submodule(slot).register_forward_hook(self._keep_map)
        )

    def start(self, step: int) -> None:
        """Sets the drop rate of a step, which grows linearly (1707.07012, appendix A)."""
        self._rate = self._config.drop_path * (step + 1) / self._n_steps
        seed = stable_seed(self._seed, "train/drop_path", step)
        self._random = torch.Generator().manual_seed(seed)
        if isinstance(self._network, RecurrentNetwork):
            self._network.rng = self._random

    def loss(self, labels: Tensor) -> Tensor | float:
        """Weighted cross-entropy of the auxiliary classifier in the last forward pass."""
        if self._map is None:
            return 0.0
        head = self._network.get_submodule("auxiliary_head")
        logits, self._map = head(self._map).float(), None
        smoothing = self._config.label_smoothing
        return self._config.auxiliary * F.cross_entropy(logits, labels, label_smoothing=smoothing)

    def remove(self) -> None:
        """Removes hooks, dropout and auxiliary classifier; the network keeps its new weights."""
        for handle in self._handles:
            handle.remove()
        if self._config.auxiliary:
            del self._network.auxiliary_head
        if isinstance(self._network, RecurrentNetwork):
            self._network.dropout = 0.0

    def _drop(self, module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        return drop(output, self._rate, self._random, per_image=True)

    def _keep_map(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        self._map = output


def _branches(network: nn.Module) -> list[nn.Module]:
    """Terms of sums in a graph, and branches of residual blocks."""
    definition = getattr(network, "definition", {})
    terms = [network.get_submodule(slot) for slot in definition.get("branches", ())]
    named = network.named_modules()
    return terms + [module for name, module in named if name.rpartition(".")[2] == "drop_path"]
