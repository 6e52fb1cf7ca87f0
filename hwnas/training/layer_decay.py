"""Layer-wise learning rates: lower towards the stem (ULMFiT 1801.06146)."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch

__all__ = ["parameter_groups", "stage_of"]

# names in static networks
_SAME_STAGE = {"bn1": "conv_stem", "bn2": "conv_head", "norm_head": "conv_head"}
_TOPMOST = "hypernet"  # it affects all layers, and is not a layer itself


def parameter_groups(
    model: torch.nn.Module, *, decay: float, weight_decay: float
) -> list[dict[str, Any]]:
    """Parameter groups of an optimiser, one per stage, with the `lr_scale` of timm's schedules.

    The last stage, the classifier, has scale 1. Each earlier stage has `decay` times the scale of
    the next one. Stages are: stem, stages of blocks, head (with the convolution after the pooling),
    classifier. A supernet and its extracted networks have the same stages. As without groups,
    biases and BN parameters have no weight decay.
    """
    stages: list[str] = []
    found: dict[tuple[str, bool], list[torch.nn.Parameter]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        stage = stage_of(name)
        if stage not in stages and stage != _TOPMOST:
            stages.append(stage)
        found[stage, parameter.ndim > 1 and not name.endswith(".bias")].append(parameter)
    scales = {stage: decay**n for n, stage in enumerate(reversed(stages))}
    return [
        {
            "params": parameters,
            "lr_scale": scales.get(stage, 1.0),
            "weight_decay": weight_decay * decays,
        }
        for (stage, decays), parameters in found.items()
    ]


def stage_of(name: str) -> str:
    """The stage of a parameter, by its name in a supernet or in a static network."""
    first, _, rest = name.partition(".")
    if first == "blocks":
        return f"blocks.{rest.partition('.')[0]}"
    return _SAME_STAGE.get(first, first)
