"""Estimates the disk space that stages need, and checks it before the first stage runs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from hwnas.core.errors import UserError
from hwnas.core.rundir import RunDir
from hwnas.core.store import free_bytes
from hwnas.pipeline.plan import Stage
from hwnas.pipeline.project import Project
from hwnas.spaces.cost import cost
from hwnas.training.sections import FinetuneConfig, TrainConfig

__all__ = ["checkpoint_bytes", "require_space", "weights_bytes"]

SPARE = 1 << 24  # bytes for ledger, journals and other small files
FLOAT = 4  # bytes


def require_space(run: RunDir, stages: Iterable[Stage]) -> None:
    """Refuses a disk with less free space than stages need for their remaining files.

    Raises:
        UserError: states the needed and the free space.
    """
    needs = {
        stage.name: max(0, stage.writes() - sum(_size(path) for path in _owned(stage, run)))
        for stage in stages
    }
    needed, free = sum(needs.values()) + SPARE, free_bytes(run.root)
    if not needs or free is None or free >= needed:
        return
    most = max(needs, key=lambda name: needs[name])
    raise UserError(
        "too little disk space",
        expected=f"about {_text(needed)}, of which {_text(needs[most])} for stage {most!r}",
        found=f"{_text(free)} free",
        where=run.root.absolute(),
        fix="free disk space there, or give a folder on another disk with --run",
    )


def weights_bytes(project: Project) -> tuple[int, int]:
    """Size in bytes of the float32 weights of the smallest and the largest network."""
    space = project.space
    n = cost(space, space.codes([space.smallest(), space.largest()]), "params")
    return int(n[0]) * FLOAT, int(n[1]) * FLOAT


def checkpoint_bytes(recipe: TrainConfig | FinetuneConfig, weights: int) -> int:
    """Size of the checkpoints that one training keeps; `weights`: size of its weights."""
    n_moments = 1 if recipe.optimizer.name == "sgd" else 2
    n_kept = recipe.keep_last if isinstance(recipe, TrainConfig) else 2
    has_average = isinstance(recipe, TrainConfig) and recipe.ema is not None
    return (n_kept + 1) * (1 + n_moments + has_average) * weights  # one more while it is written


def _owned(stage: Stage, run: RunDir) -> list[Path]:
    return [run.path(name) for name in stage.owns if "*" not in name]


def _size(path: Path) -> int:
    """Size of a file, or of all files in a folder, in bytes; 0 if there is none."""
    files = [path] if path.is_file() else path.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file())


def _text(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.0f} MB"
