"""A graph convolutional network that scores architectures, as an ensemble run in one pass.

Every weight has a leading axis of ensemble members, so e members need one set of batched matrix
products. Fits on a hundred graphs spend most of their time in call overhead.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["GCN", "EnsembleLinear", "EnsembleMLP"]

POSITION_STD = 0.3
"""Standard deviation of the initial slot embedding. A small value gives operators more weight.

Measured: 0.1 to 0.3 give 0.003 to 0.006 more tau than 1 on NAS-Bench-Macro and OFA records at 80
labels.
"""


DIRECTIONS = ("reads", "feeds", "itself")


def _draw(members: int, n_in: int, n_out: int, generator: torch.Generator) -> Tensor:
    """Weights [e, in, out] from N(0, 1 / in); empty if there is no input."""
    return torch.randn(members, n_in, n_out, generator=generator) / math.sqrt(max(n_in, 1))


class EnsembleLinear(nn.Module):
    """A linear layer per member: [e, n, in] -> [e, n, out]."""

    def __init__(self, members: int, n_in: int, n_out: int, generator: torch.Generator) -> None:
        super().__init__()
        self.weight = nn.Parameter(_draw(members, n_in, n_out, generator))
        self.bias = nn.Parameter(torch.zeros(members, 1, n_out))

    def forward(self, x: Tensor) -> Tensor:
        """`x`: [e, n, in]."""
        return torch.baddbmm(self.bias, x, self.weight)


class EnsembleMLP(nn.Module):
    """Linear layers with ReLU between them: [e, n, widths[0]] -> [e, n, widths[-1]].

    An input without a member axis, [n, widths[0]], is used for every member.
    """

    def __init__(self, members: int, widths: tuple[int, ...], generator: torch.Generator) -> None:
        super().__init__()
        self.members = members
        self.layers = nn.ModuleList(
            EnsembleLinear(members, n_in, n_out, generator) for n_in, n_out in pairwise(widths)
        )

    def forward(self, x: Tensor) -> Tensor:
        """`x`: [e, n, widths[0]] or [n, widths[0]]."""
        x = x.expand(self.members, -1, -1)
        for position, layer in enumerate(self.layers):
            x = layer(F.relu(x) if position else x)
        return x


class GraphConv(nn.Module):
    """x + ReLU(LayerNorm(R (x W + a) + F (x U + b) + x V + c)), with weights per direction.

    x: features of the nodes. R averages over the nodes that a node reads, and F over those that
    read it. (Each node also counts itself.) One matrix product applies all weights, and another one
    R and F, because calls are more expensive than arithmetic at this size.
    """

    def __init__(self, members: int, width: int, generator: torch.Generator) -> None:
        super().__init__()
        self.directions = EnsembleLinear(members, width, len(DIRECTIONS) * width, generator)

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        """`x`: [e, b, nodes, width]; `adjacency`: [e * b, nodes, nodes * 3] of `_adjacency`."""
        messages = self.directions(x.flatten(1, 2))
        mixed = torch.bmm(adjacency, messages.view(*adjacency.shape[::2], x.shape[-1]))
        return x + F.relu(F.layer_norm(mixed, mixed.shape[-1:]), inplace=True).view_as(x)


def _adjacency(reads: Tensor, feeds: Tensor, members: int) -> Tensor:
    """Adjacency [e * b, nodes, nodes * 3] of all three directions, from two [b, nodes, nodes]."""
    itself = torch.eye(reads.shape[1]).expand_as(reads)
    heard = torch.stack([reads, feeds, itself], dim=3).flatten(2)
    return heard.expand(members, -1, -1, -1).flatten(0, 1)


class GCN(nn.Module):
    """Scores graphs whose nodes are rows of a fixed feature table.

    The design is that of BRP-NAS (2007.08668, section 3.1: global node, self loops, row-normalised
    adjacency) with residual connections, LayerNorm and edges in both directions. The read-out
    concatenates the global node, the sum of all present nodes, and the summary of the graph. The
    sum is needed because the global node is a mean, which loses the number of nodes. The position
    of a node is an embedding of its slot.

    Args:
        table: [rows, f] node features.
        n_nodes: nodes per graph, including the global node (the last one).
        n_summary: number of values that describe a whole graph.
        members: ensemble size e.
        width: channels of every layer and of the head.
        depth: number of graph convolutions.
        generator: draws all initial weights.
    """

    table: Tensor

    def __init__(
        self,
        table: Tensor,
        *,
        n_nodes: int,
        n_summary: int,
        members: int,
        width: int,
        depth: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.register_buffer("table", table, persistent=False)
        self.embed = EnsembleLinear(members, table.shape[1], width, generator)
        self.summarise = EnsembleLinear(members, n_summary, width, generator)
        position = torch.randn(members, n_nodes, width, generator=generator)
        self.position = nn.Parameter(POSITION_STD * position)
        self.convs = nn.ModuleList(GraphConv(members, width, generator) for _ in range(depth))
        self.head = EnsembleMLP(members, (3 * width, width, 1), generator)

    def forward(self, nodes: Tensor, reads: Tensor, feeds: Tensor, summary: Tensor) -> Tensor:
        """Scores [e, b].

        nodes: int64 [b, n_nodes], rows of the table.
        reads, feeds: [b, n_nodes, n_nodes]; the rows of absent nodes are zero.
        summary: [b, n_summary].
        """
        members, n_nodes, _ = self.position.shape
        features = self.table[nodes].flatten(0, 1).expand(members, -1, -1)
        x = self.embed(features).unflatten(1, nodes.shape) + self.position[:, None]
        whole = self.summarise(summary.expand(members, -1, -1))
        x = torch.cat([x[:, :, :-1], x[:, :, -1:] + whole[:, :, None]], dim=2)
        adjacency = _adjacency(reads, feeds, members)
        for conv in self.convs:
            x = conv(x, adjacency)
        present = (reads.diagonal(dim1=1, dim2=2)[:, None, :-1] > 0).to(x.dtype)
        total = torch.matmul(present, x[:, :, :-1])[:, :, 0] / n_nodes
        scores: Tensor = self.head(torch.cat([x[:, :, -1], total, whole], dim=-1))[..., 0]
        return scores
