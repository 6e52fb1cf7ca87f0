"""The forward pass of a supernet of recurrent cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from hwnas.core.errors import UserError
from hwnas.nets.elastic import Modulation
from hwnas.nets.recurrent_net import CellStep, masks, run_cell
from hwnas.nets.sharing import Node
from hwnas.spaces.network import Step

if TYPE_CHECKING:
    from hwnas.nets.supernet import Supernet

__all__ = ["check_tokens", "recurrent_logits"]


def recurrent_logits(
    supernet: Supernet,
    tokens: Tensor,
    program: Sequence[tuple[Step, Node | None]],
    modulations: Mapping[str, Modulation],
    rng: torch.Generator | None,
    dropout: float,
) -> Tensor:
    """Logits [B, words, L] of an arch for tokens [B, S, L], see `recurrent_net`.

    program: the steps of the arch, see `nets.sharing.program`.
    dropout: rate of locked dropout of inputs, state and outputs.

    Raises:
        UserError: these are not tokens of the vocabulary.
    """
    check_tokens(tokens, supernet.space.macro.num_classes)
    weights: dict[str, Tensor] = {}
    steps, bias = [], None
    for step, node in program:
        assert node is not None  # nothing is summed
        for site in node.sites:
            pair = supernet.elastic(site.path).sliced(site.layer, modulations.get(site.path))
            weights[node.slot], bias = pair
        if node.op.kind != "linear":
            steps.append(CellStep(node.slot, node.op.kind, node.op.act, step.reads, step.writes))
    words = weights["classifier"]
    states = run_cell(steps, weights, words, tokens, masks(tokens, words, dropout, rng))
    return F.linear(states, words, bias).transpose(1, 2)


def check_tokens(tokens: Tensor, n_words: int) -> None:
    """Refuses batches that are not tokens of a vocabulary.

    Raises:
        UserError: another type or shape, or numbers outside the vocabulary.
    """
    is_right = tokens.dtype == torch.int64 and tokens.ndim == 3 and tokens.numel() > 0
    if not is_right:
        raise UserError(
            "the input is not a batch of tokens, as this network needs",
            expected="int64 [B, segments, tokens]",
            found=f"{tokens.dtype} {list(tokens.shape)}",
        )
    if int(tokens.min()) < 0 or int(tokens.max()) >= n_words:
        raise UserError(
            "a token is not in the vocabulary of the network",
            expected=f"numbers from 0 to {n_words - 1}",
            found=f"numbers from {int(tokens.min())} to {int(tokens.max())}",
            fix="encode the text with the vocabulary that the network was trained with",
        )
