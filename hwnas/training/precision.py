"""Device and number format of training: fp32, or mixed precision on CUDA."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass
from typing import Any, Literal

import torch

from hwnas.core.errors import UserError
from hwnas.training.distributed import local_rank

__all__ = ["CPU", "FULL", "Accelerator", "Format", "Precision", "pick_device", "place", "wait_for"]

log = logging.getLogger(__name__)

Accelerator = Literal["auto", "cpu", "cuda"]
Format = Literal["fp32", "bf16", "fp16"]


@dataclass(frozen=True)
class Precision:
    """Number format of forward passes; `scaler` prevents underflow of fp16 gradients.

    Weights, losses and the optimiser are always fp32.
    """

    device: torch.device
    dtype: torch.dtype | None = None
    scaler: torch.amp.GradScaler | None = None

    @staticmethod
    def of(format: Format, device: torch.device, *, setting: str = "train.precision") -> Precision:
        """The precision of `format` on `device`: fp32 on CPUs, with a warning.

        `setting` is the name of the setting in the warning.
        """
        if format == "fp32":
            return Precision(device)
        if device.type != "cuda":
            log.warning(
                "%s: %s is ignored: on a CPU, mixed precision is slower than fp32, which is used",
                setting,
                format,
            )
            return Precision(device)
        if format == "bf16":
            return Precision(device, torch.bfloat16)
        return Precision(device, torch.float16, torch.amp.GradScaler(device.type))

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """Context for forward passes; backward passes must be outside."""
        if self.dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def backward(self, loss: torch.Tensor) -> None:
        """Adds the gradient of `loss`, scaled if necessary."""
        scaled = loss if self.scaler is None else self.scaler.scale(loss)
        scaled.backward()  # type: ignore[no-untyped-call]

    def state(self) -> dict[str, Any] | None:
        """State of the scaler as JSON values; None if there is none."""
        return None if self.scaler is None else self.scaler.state_dict()

    def load_state(self, state: dict[str, Any] | None) -> None:
        """Inverse of `state`, if both sides have a scaler."""
        if self.scaler is not None and state is not None:
            self.scaler.load_state_dict(state)


CPU = torch.device("cpu")
FULL = Precision(CPU)


def pick_device(accelerator: Accelerator) -> torch.device:
    """The device for training and scoring; `auto` is CUDA if available.

    With several GPUs it is the first one; under torchrun, that of the local rank.

    Raises:
        UserError: CUDA is requested but not available.
    """
    has_cuda = torch.cuda.is_available()
    if accelerator == "cuda" and not has_cuda:
        raise UserError(
            "there is no CUDA device to train on",
            expected="a CUDA device that torch can use (torch.cuda.is_available())",
            found=f"none; torch {torch.__version__} was built"
            + (f" for CUDA {torch.version.cuda}" if torch.version.cuda else " without CUDA"),
            where="accelerator",
            fix="set accelerator to auto or cpu, or check driver and CUDA_VISIBLE_DEVICES",
        )
    if not has_cuda or accelerator == "cpu":
        return CPU
    return torch.device("cuda", local_rank() % torch.cuda.device_count())


def place(model: torch.nn.Module, device: torch.device) -> None:
    """Moves `model` to `device`, in the memory format that is fastest there."""
    if device.type != "cpu":  # CPU convolutions are fast in any weight format
        model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def wait_for(device: torch.device) -> None:
    """Waits until `device` has finished its work, so that a clock can be read."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
