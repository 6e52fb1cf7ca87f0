"""Optimiser, learning rate and the guarded step that supernet training and fine-tuning share."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler

from hwnas.core.errors import UserError
from hwnas.training.config import OptimizerConfig

__all__ = ["Stepper"]


class Stepper:
    """timm's optimiser over `model`; the learning rate is a function of the step number alone.

    Raises:
        UserError: timm knows no such optimiser, or it refuses the settings.
    """

    def __init__(self, model: torch.nn.Module, config: OptimizerConfig, *, n_steps: int) -> None:
        try:
            self.optimizer = create_optimizer_v2(
                model,
                opt=config.name,
                lr=config.lr,
                weight_decay=config.weight_decay,
                momentum=config.momentum,
            )
        except (ImportError, ValueError) as error:
            raise UserError(
                "cannot make the optimiser",
                expected="a name of timm.optim.list_optimizers(), and settings that it takes",
                found=f"{config.name}: {error}",
                where="optimizer",
            ) from error
        self._parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        self._clip_norm = config.clip_norm or math.inf
        self._schedule = CosineLRScheduler(
            self.optimizer,
            t_initial=n_steps,
            lr_min=config.min_lr,
            warmup_t=round(config.warmup * n_steps),
            warmup_lr_init=config.lr / 100,
            t_in_epochs=False,
        )

    @property
    def lr(self) -> float:
        """Learning rate of the last step."""
        return float(self.optimizer.param_groups[0]["lr"])

    def start(self, step: int) -> None:
        """Set the learning rate of `step` and forget the gradients."""
        self._schedule.step_update(step)
        self.optimizer.zero_grad(set_to_none=True)

    def finish(self, losses: Sequence[float], *, step: int, nets: Sequence[str]) -> None:
        """Clip the gradients and update the weights, unless something is not finite.

        Raises:
            UserError: a loss or the gradient is NaN or infinite; the weights are left untouched.
        """
        culprits = [net for net, loss in zip(nets, losses, strict=True) if not math.isfinite(loss)]
        norm = float(torch.nn.utils.clip_grad_norm_(self._parameters, self._clip_norm))
        if culprits or not math.isfinite(norm):
            raise UserError(
                f"training diverged: the {'loss' if culprits else 'gradient'} is not finite",
                found=f"losses {list(losses)}, gradient norm {norm}",
                where=f"step {step}, {'; '.join(culprits or nets)}",
                fix="lower optimizer.lr or optimizer.clip_norm, or lengthen optimizer.warmup; the "
                "last checkpoint is intact",
            )
        self.optimizer.step()
