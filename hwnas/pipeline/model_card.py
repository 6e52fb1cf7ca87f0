"""Metadata of an exported model file: its network, its input, the origin of its weights."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from hwnas.core.records import dump
from hwnas.exporters.manifest import InputSpec
from hwnas.nets.origin import origin_metadata, origin_of
from hwnas.pipeline.project import Project
from hwnas.spaces.arch import Arch
from hwnas.spaces.lowering import resolution

if TYPE_CHECKING:
    import torch

__all__ = ["model_card"]


def model_card(project: Project, arch: Arch, model: torch.nn.Module) -> dict[str, str]:
    """Metadata of a model file: its network, preprocessing of images, and its classes."""
    info, px = project.source.info, resolution(project.space, arch)
    spec = dump(InputSpec.of(info, px), versioned=False)
    if project.space.macro.reads_tokens:
        return _text_card(project, arch, model)
    card = (
        f"Image classifier found by hwnas ({project.config.name}): {info.num_classes} classes of"
        f" {info.name}, input {info.in_channels} x {px} x {px}, space {project.space.name}."
        " Logits; softmax gives probabilities."
    )
    if origin := origin_of(model):
        card += f" Its weights started from {origin}."
    return {
        **project.metadata(arch),
        **origin_metadata(model),
        "model_card": card,
        "preprocessing": json.dumps(spec),
        "class_names": json.dumps(list(info.class_names)),
    }


def _text_card(project: Project, arch: Arch, model: torch.nn.Module) -> dict[str, str]:
    """Metadata of a language model: its network and its vocabulary."""
    info = project.source.info
    card = (
        f"Language model found by hwnas ({project.config.name}): {info.num_classes} words of"
        f" {info.name}, space {project.space.name}. One step maps a token and a state to the"
        " logits of the next token and to the next state; the first state is zero."
    )
    return {
        **project.metadata(arch),
        **origin_metadata(model),
        "model_card": card,
        "class_names": json.dumps(list(info.class_names)),
    }
