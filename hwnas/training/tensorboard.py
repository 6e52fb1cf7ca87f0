"""Rows of training metrics for TensorBoard, an optional package."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from hwnas.core.env import require

__all__ = ["scalars", "tensorboard_rows"]


def tensorboard_rows(folder: Path) -> Callable[[dict[str, Any]], None]:
    """Writes rows of `train_supernet` immediately to event files in `folder`.

    Raises:
        UserError: tensorboard is not installed.
    """
    require("tensorboard", extra="tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder))

    def write(row: dict[str, Any]) -> None:
        for name, value in scalars(row).items():
            writer.add_scalar(name, value, row["step"])
        writer.flush()

    return write


def scalars(row: dict[str, Any]) -> dict[str, float]:
    """All numbers of a row, with names that group the charts: `top1/largest`, `losses/0`, `lr`."""
    found: dict[str, float] = {}
    for key, value in row.items():
        if isinstance(value, dict):
            found |= {f"{key}/{name}": number for name, number in value.items()}
        elif isinstance(value, list):
            numbers = [item for item in value if not isinstance(item, str)]
            found |= {f"{key}/{n}": number for n, number in enumerate(numbers)}
        elif key != "step":
            found[key] = value
    return found
