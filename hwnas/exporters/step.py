"""One step of a recurrent network as a module, which exporters trace."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Step"]


class Step(nn.Module):
    """A module whose `forward` is `RecurrentNetwork.step`."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, token: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Token [B] and state [B, width] -> logits [B, words] and the next state."""
        found: tuple[Tensor, Tensor] = self.network.step(token, state)
        return found

    def example(self, n: int) -> tuple[Tensor, Tensor]:
        """Example inputs of batch size n: token [n] and state [n, width]."""
        return torch.zeros(n, dtype=torch.int64), torch.zeros(n, self.network.width)
