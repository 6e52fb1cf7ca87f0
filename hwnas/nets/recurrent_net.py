"""A recurrent language model from its JSON definition; needs only torch.

Tokens are int64 [B, S, L]: S consecutive segments of L tokens. The state, initially zero, is
carried through all segments. Gradients flow only within the last one (truncated backpropagation),
and only its logits are returned, [B, words, L]: position l predicts the token after token l.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EMBEDDING_BOUND = 0.1
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
}


class CellStep(NamedTuple):
    """An operator of a cell: its slot, kind and activation, the values it reads and writes."""

    slot: str
    kind: str
    act: str
    reads: Sequence[int]
    writes: int


class Masks(NamedTuple):
    """Masks of locked dropout (1512.05287), [B, width] each; all tokens of a text share them."""

    inputs: Tensor
    state: Tensor
    outputs: Tensor


def masks(tokens: Tensor, words: Tensor, rate: float, rng: torch.Generator | None) -> Masks | None:
    """Random masks for a batch; None at rate 0."""
    if not rate:
        return None
    kept = torch.rand(3, len(tokens), words.shape[1], generator=rng) >= rate
    return Masks(*(kept.to(words) / (1 - rate)))


def next_state(
    steps: Sequence[CellStep], weights: Mapping[str, Tensor], x: Tensor, state: Tensor
) -> Tensor:
    """The state [B, width] after a token with the embedding x [B, width].

    weights: maps the slots of `join` and `highway` operators to weights [2 * width, in].
    """
    values: dict[int, Tensor] = {}
    found = x
    for slot, kind, act, reads, writes in steps:
        given = [values[value] for value in reads if value]
        if kind == "join":
            found = _highway(torch.cat([given[0], state], 1), state, weights[slot], act)
        elif kind == "highway":
            found = _highway(given[0], given[0], weights[slot], act)
        elif kind == "concat":
            found = torch.cat(given, 1)
        elif kind == "fold":
            n_blocks = given[0].shape[1] // x.shape[1]
            found = given[0].reshape(-1, n_blocks, x.shape[1]).mean(1)  # of any batch size
        values[writes] = found
    return found


def _highway(x: Tensor, before: Tensor, weight: Tensor, act: str) -> Tensor:
    """before + sigmoid(c) * (act(h) - before), with [c, h] = W x."""
    gate, value = F.linear(x, weight).chunk(2, 1)
    return before + torch.sigmoid(gate) * (ACTIVATIONS[act](value) - before)


def run_cell(
    steps: Sequence[CellStep],
    weights: Mapping[str, Tensor],
    words: Tensor,
    tokens: Tensor,
    dropped: Masks | None = None,
) -> Tensor:
    """States [B, L, width] after every token of the last segment of `tokens` [B, S, L].

    weights: see `next_state`.
    words: embedding [words, width].
    """
    state = words.new_zeros(len(tokens), words.shape[1])
    n_segments = tokens.shape[1]
    found: list[Tensor] = []
    for number in range(n_segments):
        is_last = number == n_segments - 1
        with torch.set_grad_enabled(is_last and torch.is_grad_enabled()):
            inputs = F.embedding(tokens[:, number], words)
            for x in inputs.unbind(1):
                read = state
                if dropped is not None:
                    x, read = x * dropped.inputs, state * dropped.state
                state = next_state(steps, weights, x, read)
                if is_last:
                    found.append(state if dropped is None else state * dropped.outputs)
    return torch.stack(found, 1)


class Cellular(nn.Module):
    """The weights of one operator of a cell."""

    def __init__(self, n_read: int, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(n_read, 2 * width, bias=False)


class RecurrentNetwork(nn.Module):
    """A language model with one recurrent cell. Its modules are named after slots.

    The weights of `classifier` are also the embedding.

    dropout: rate of locked dropout in training mode, drawn from `rng`; 0 by default.
    """

    reads_tokens = True

    def __init__(self, definition: dict[str, Any]) -> None:
        super().__init__()
        self.dropout, self.rng = 0.0, torch.Generator()
        ops = definition["ops"]
        self.cell: list[CellStep] = []
        for slot, reads, writes in definition["steps"]:
            op = ops[slot]
            if op["kind"] in ("join", "highway"):
                n_read = op["in_channels"] + op["out_channels"] * (op["kind"] == "join")
                self.add_module(slot, Cellular(n_read, op["out_channels"]))
            if op["kind"] != "linear":
                self.cell.append(CellStep(slot, op["kind"], op["act"], reads, writes))
            else:
                self.width = op["in_channels"]
                self.classifier = nn.Linear(self.width, op["out_channels"])
                nn.init.uniform_(self.classifier.weight, -EMBEDDING_BOUND, EMBEDDING_BOUND)
                nn.init.zeros_(self.classifier.bias)

    @property
    def weights(self) -> dict[str, Tensor]:
        """Maps the slots of the cell to weights, see `next_state`."""
        modules = self.named_children()
        return {slot: part.linear.weight for slot, part in modules if isinstance(part, Cellular)}

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens [B, S, L] -> logits [B, words, L]."""
        words, rate = self.classifier.weight, self.dropout if self.training else 0.0
        dropped = masks(tokens, words, rate, self.rng)
        states = run_cell(self.cell, self.weights, words, tokens, dropped)
        logits: Tensor = self.classifier(states)
        return logits.transpose(1, 2)

    def step(self, token: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Token [B] and state [B, width] -> logits [B, words] and the next state [B, width]."""
        x = F.embedding(token, self.classifier.weight)
        state = next_state(self.cell, self.weights, x, state)
        return self.classifier(state), state


def build(definition: dict[str, Any]) -> nn.Module:
    """Builds the network of a definition."""
    return RecurrentNetwork(definition)


def load(path: Path) -> nn.Module:
    """Loads a definition from the file `path` and builds its network."""
    return build(json.loads(path.read_text()))
