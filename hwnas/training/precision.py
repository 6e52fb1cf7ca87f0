"""Where training computes and in which number format: fp32, or mixed precision on CUDA."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass
from typing import Literal

import torch

from hwnas.core.errors import UserError

__all__ = ["FULL", "Accelerator", "Format", "Precision", "pick_device"]

log = logging.getLogger(__name__)

Accelerator = Literal["auto", "cpu", "cuda"]
Format = Literal["fp32", "bf16", "fp16"]


@dataclass(frozen=True)
class Precision:
    """Number format of forward passes; `scaler` keeps the gradients of fp16 from underflow.

    Weights, losses and the optimiser are fp32 in any case.
    """

    device: torch.device
    dtype: torch.dtype | None = None
    scaler: torch.amp.GradScaler | None = None

    @staticmethod
    def of(format: Format, device: torch.device) -> Precision:
        """The precision that `format` means on `device`: fp32 on CPUs, with a warning."""
        if format == "fp32":
            return Precision(device)
        if device.type != "cuda":
            log.warning(
                "train.precision %s is off: on a CPU mixed precision is slower than fp32, which "
                "is used instead",
                format,
            )
            return Precision(device)
        if format == "bf16":
            return Precision(device, torch.bfloat16)
        return Precision(device, torch.float16, torch.amp.GradScaler(device.type))

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """Where forward passes run; backward passes belong outside."""
        if self.dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradient of `loss`, scaled if it has to be."""
        scaled = loss if self.scaler is None else self.scaler.scale(loss)
        scaled.backward()  # type: ignore[no-untyped-call]


FULL = Precision(torch.device("cpu"))


def pick_device(accelerator: Accelerator) -> torch.device:
    """The device to train on; `auto` is CUDA where there is some.

    Raises:
        UserError: CUDA is asked for and absent.
    """
    has_cuda = torch.cuda.is_available()
    if accelerator == "cuda" and not has_cuda:
        raise UserError(
            "there is no CUDA device to train on",
            expected="torch.cuda.is_available()",
            found=f"torch {torch.__version__}, built for CUDA {torch.version.cuda}",
            where="accelerator",
            fix="set accelerator to auto or cpu, or check driver and CUDA_VISIBLE_DEVICES",
        )
    return torch.device("cuda" if has_cuda and accelerator != "cpu" else "cpu")
