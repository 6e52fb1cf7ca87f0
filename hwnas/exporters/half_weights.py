"""Weights in half precision: rounded so that the layers' outputs change least, not to the nearest.

GPTQ (Frantar et al., 2022, arXiv:2210.17323, section 3) with the numbers of half precision as its
grid. Weights are rounded one input of a layer after the other, and those that follow make up for
the error on the inputs that the layer sees. quickstart's winner: the largest error on 412 test
images falls from 1.3e-2 to 1.2e-3 of the largest logit (`benchmarks/half_weights.py`).
"""

from __future__ import annotations

from functools import partial

import torch
from torch import nn
from torch.nn import functional

from hwnas.core.rng import rng
from hwnas.exporters.fold import folded
from hwnas.interfaces import Images

__all__ = ["half_weights"]

N_IMAGES = 32  # 8 to 64 are equally good
BATCH = 4
DAMPING = 1e-4  # of the mean square of a layer's inputs


@torch.no_grad()
def half_weights(model: nn.Module, images: Images) -> nn.Module:
    """A folded copy of `model` whose convolutions and linear layers have half-precision weights.

    The weights remain float32; each has a value of half precision, so that converters lose nothing.
    A layer remains as it is if a weight is outside the range of half precision, or an input is not
    finite.

    images: training images [n, C, H, W]; a seeded selection of `N_IMAGES` is used.
    """
    net = folded(model).cpu()
    chosen = rng(0, "exporters/half_weights").permutation(len(images))[:N_IMAGES]
    grams: dict[nn.Conv2d | nn.Linear, torch.Tensor] = {}
    hooks = [
        module.register_forward_pre_hook(partial(_add_gram, grams))
        for module in net.modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    for batch in torch.split(torch.from_numpy(images[chosen]), BATCH):
        net(batch)
    for hook in hooks:
        hook.remove()
    for layer, gram in grams.items():
        _round(layer, gram)
    return net


def _add_gram(
    grams: dict[nn.Conv2d | nn.Linear, torch.Tensor],
    layer: nn.Conv2d | nn.Linear,
    inputs: tuple[torch.Tensor, ...],
) -> None:
    """Adds the products of all pairs of inputs of a layer: [groups, inputs + 1, inputs + 1].

    The last input is the constant 1 of the bias.
    """
    if not inputs:  # called with keywords
        return
    rows = _rows(layer, inputs[0])
    rows = torch.cat([rows, torch.ones_like(rows[..., :1])], -1)
    grams[layer] = grams.get(layer, 0.0) + (rows.mT @ rows).double()


def _rows(layer: nn.Conv2d | nn.Linear, x: torch.Tensor) -> torch.Tensor:
    """What the weights of one output are multiplied with: [groups, positions, inputs]."""
    if isinstance(layer, nn.Linear):
        return x.reshape(1, -1, x.shape[-1])
    (d_y, d_x), (k_y, k_x) = layer.dilation, layer.kernel_size
    padding = (d_y * (k_y - 1) // 2, d_x * (k_x - 1) // 2)
    windows = functional.unfold(x, layer.kernel_size, layer.dilation, padding, layer.stride)
    n, _, positions = windows.shape
    by_group = windows.view(n, layer.groups, -1, positions)
    return by_group.permute(1, 0, 3, 2).reshape(layer.groups, n * positions, -1)


def _round(layer: nn.Conv2d | nn.Linear, gram: torch.Tensor) -> None:
    groups, n_inputs = len(gram), gram.shape[1] - 1
    weight = layer.weight.double().reshape(groups, -1, n_inputs)
    bias = torch.zeros_like(weight[..., 0]) if layer.bias is None else layer.bias.double()
    rounded = _rounded(torch.cat([weight, bias.reshape(groups, -1, 1)], -1), gram)
    if rounded.isfinite().all():
        layer.weight.copy_(rounded[..., :-1].reshape(layer.weight.shape))
        if layer.bias is not None:
            layer.bias.copy_(rounded[..., -1].reshape(-1))


def _rounded(weights: torch.Tensor, gram: torch.Tensor) -> torch.Tensor:
    """Weights [groups, outputs, inputs] with values of half precision.

    The inputs with the largest products come first, because their weights are the coarsest.
    """
    squares = gram.diagonal(dim1=1, dim2=2)
    order = (weights.abs().amax(1) * squares.sqrt()).argsort(dim=-1, descending=True)
    left = weights.gather(2, order[:, None].expand_as(weights))
    damping = (DAMPING * squares.mean(-1, keepdim=True)).expand_as(squares)
    gram = gram + torch.diag_embed(damping)
    gram = gram.gather(1, order[..., None].expand_as(gram))
    gram = gram.gather(2, order[:, None].expand_as(gram))
    factor = torch.linalg.cholesky_ex(torch.linalg.inv_ex(gram).inverse, upper=True).L
    for i in range(weights.shape[-1]):
        exact = left[..., i].clone()
        left[..., i] = exact.half().double()
        error = (exact - left[..., i]) / factor[:, i, i, None]
        left[..., i + 1 :] -= error[..., None] * factor[:, None, i, i + 1 :]
    return torch.empty_like(left).scatter(2, order[:, None].expand_as(left), left)
