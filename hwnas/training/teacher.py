"""A trained timm model that teaches the supernet in addition to the labels."""

from __future__ import annotations

from dataclasses import dataclass

import timm
import torch

from hwnas.core.errors import UserError
from hwnas.interfaces import DataInfo
from hwnas.nets.pretrained import read_weights
from hwnas.training.images import resize
from hwnas.training.optional_sections import TeacherConfig

__all__ = ["PretrainedTeacher", "load_teacher"]


@dataclass(frozen=True)
class PretrainedTeacher:
    """A network in eval mode that sees images at `px`, as x * scale + shift per channel.

    scale, shift: [C, 1, 1]; they convert the normalisation of the data to that of the network.
    """

    model: torch.nn.Module
    px: int
    scale: torch.Tensor
    shift: torch.Tensor

    @torch.no_grad()
    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Logits [B, classes] of normalised images [B, C, base_px, base_px]."""
        logits: torch.Tensor = self.model(resize(x, self.px) * self.scale + self.shift)
        return logits.float()


def load_teacher(config: TeacherConfig, info: DataInfo, device: torch.device) -> PretrainedTeacher:
    """The teacher in the settings, with its weights, for the classes of a data set.

    Raises:
        UserError: timm has no such model, or the file does not contain its weights.
    """
    try:
        model = timm.create_model(
            config.model, pretrained=False, num_classes=info.num_classes, in_chans=info.in_channels
        )
    except (RuntimeError, TypeError, ValueError) as error:
        raise UserError(
            "timm cannot create the teacher",
            expected="a name from timm.list_models()",
            found=f"{config.model}: {error}",
            where="train.teacher.model",
        ) from error
    try:
        model.load_state_dict(read_weights(config.weights))
    except RuntimeError as error:
        raise UserError(
            f"these are not the weights of {config.model} for {info.num_classes} classes",
            found=str(error)[:400],
            where=config.weights,
            fix=f"train the model on this data set first, with {info.num_classes} outputs",
        ) from error
    mean, std = (torch.tensor(values) for values in (info.mean, info.std))
    scale, shift = torch.ones_like(std), torch.zeros_like(mean)
    if config.normalisation == "timm":
        own_mean, own_std = (
            torch.tensor(model.pretrained_cfg[key], dtype=torch.float32) for key in ("mean", "std")
        )
        scale, shift = std / own_std, (mean - own_mean) / own_std
    return PretrainedTeacher(
        model.eval().requires_grad_(False).to(device),
        config.px or info.base_px,
        scale[:, None, None].to(device),
        shift[:, None, None].to(device),
    )
