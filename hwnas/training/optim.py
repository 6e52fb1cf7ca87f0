"""Optimiser, learning rate, and training steps that refuse non-finite losses and gradients."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from timm.optim import create_optimizer_v2
from timm.scheduler import (
    CosineLRScheduler,
    PolyLRScheduler,
    StepLRScheduler,
    TanhLRScheduler,
)
from timm.scheduler.scheduler import Scheduler

from hwnas.core.errors import UserError
from hwnas.training.layer_decay import parameter_groups
from hwnas.training.sections import OptimizerConfig

__all__ = ["Stepper"]


class Stepper:
    """An optimiser of timm for `model`. The learning rate only depends on the step number.

    Raises:
        UserError: timm does not have the optimiser, or cannot create it with these settings.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        config: OptimizerConfig,
        *,
        n_steps: int,
        scaler: torch.amp.GradScaler | None = None,
    ) -> None:
        try:
            self.optimizer = create_optimizer_v2(
                model
                if config.layer_decay == 1
                else parameter_groups(
                    model, decay=config.layer_decay, weight_decay=config.weight_decay
                ),
                opt=config.name,
                lr=config.lr,
                weight_decay=config.weight_decay,
                momentum=config.momentum,
            )
        except (ImportError, ValueError) as error:
            raise UserError(
                "cannot create the optimiser",
                expected="an optimiser of timm (timm.optim.list_optimizers()), and settings that"
                " this optimiser accepts",
                found=f"{config.name}: {error}",
                where="optimizer",
            ) from error
        self._parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        self._clip_norm = config.clip_norm or math.inf
        self._clip_value = config.clip_value
        self._scaler = scaler
        self._schedule = _schedule(self.optimizer, config, n_steps)

    @property
    def lr(self) -> float:
        """Learning rate of the last step; that of the classifier if stages have different rates."""
        group = self.optimizer.param_groups[0]
        return float(group["lr"] / group.get("lr_scale", 1.0))

    def start(self, step: int) -> None:
        """Sets the learning rate of `step` and clears the gradients."""
        self._schedule.step_update(step)
        self.optimizer.zero_grad(set_to_none=True)

    def finish(
        self, losses: Sequence[float], *, step: int, nets: Sequence[str], batch: str = ""
    ) -> None:
        """Clips the gradients and updates the weights, unless a value is not finite.

        With a scaler (fp16), gradients that overflow are dropped and the scale is reduced. `nets`
        and `batch` describe the losses in errors.

        Raises:
            UserError: a loss or the gradient is NaN or infinite; the weights do not change.
        """
        culprits = [net for net, loss in zip(nets, losses, strict=True) if not math.isfinite(loss)]
        if self._scaler is not None:
            self._scaler.unscale_(self.optimizer)
        if self._clip_value is not None:
            torch.nn.utils.clip_grad_value_(self._parameters, self._clip_value)
        norm = float(torch.nn.utils.clip_grad_norm_(self._parameters, self._clip_norm))
        if culprits or (not math.isfinite(norm) and not self._can_lower_scale()):
            raise UserError(
                f"training diverged: the {'loss' if culprits else 'gradient'} is not finite",
                found=f"losses {list(losses)}, gradient norm {norm}",
                where=f"step {step}, {'; '.join(culprits or nets)}" + (batch and f"; {batch}"),
                fix="lower optimizer.lr or optimizer.clip_norm, or lengthen optimizer.warmup; the "
                "last checkpoint is intact",
            )
        if self._scaler is None:
            self.optimizer.step()
        else:
            self._scaler.step(self.optimizer)
            self._scaler.update()

    def _can_lower_scale(self) -> bool:
        return self._scaler is not None and self._scaler.get_scale() > 1


def _schedule(optimizer: torch.optim.Optimizer, config: OptimizerConfig, n_steps: int) -> Scheduler:
    """A schedule of timm. It only depends on the step number, so it has no state."""
    warmup = {
        "warmup_t": round(config.warmup * n_steps),
        "warmup_lr_init": config.lr / 100,
        "t_in_epochs": False,
    }
    if config.schedule in ("step", "constant") or n_steps == 1:  # timm warns of a cosine of 1 step
        return StepLRScheduler(
            optimizer,
            decay_t=max(1, round(config.decay_every * n_steps)),
            decay_rate=config.decay_rate if config.schedule == "step" else 1.0,
            warmup_prefix=False,
            **warmup,
        )
    kinds = {"cosine": CosineLRScheduler, "poly": PolyLRScheduler, "tanh": TanhLRScheduler}
    return kinds[config.schedule](optimizer, t_initial=n_steps, lr_min=config.min_lr, **warmup)
