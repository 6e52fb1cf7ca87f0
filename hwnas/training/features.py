"""The features of a network: the inputs of its classifier."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["classifier_of", "with_features"]


def classifier_of(network: nn.Module) -> nn.Linear:
    """The linear layer `classifier` of a static network, or its last one."""
    named = getattr(network, "classifier", None)
    if isinstance(named, nn.Linear):  # an auxiliary classifier may come after it
        return named
    return [module for module in network.modules() if isinstance(module, nn.Linear)][-1]


def with_features(network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Features [B, F] and logits [B, classes] of images [B, C, px, px]."""
    found: list[Tensor] = []
    hook = classifier_of(network).register_forward_pre_hook(
        lambda _, inputs: found.append(inputs[0])
    )
    try:
        logits: Tensor = network(images)
    finally:
        hook.remove()
    return found[0], logits
