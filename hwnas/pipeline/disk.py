"""Estimates the disk space that stages need, and checks it before the first stage runs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from hwnas.core.errors import UserError
from hwnas.core.rundir import REBUILT, RunDir
from hwnas.core.store import free_bytes
from hwnas.core.versions import SUPERSEDED
from hwnas.pipeline.plan import Stage
from hwnas.pipeline.project import Project
from hwnas.spaces.cost import cost
from hwnas.training.sections import FinetuneConfig, TrainConfig

__all__ = ["checkpoint_bytes", "disk_text", "disk_use", "require_space", "weights_bytes"]

PLAN = "plan.json"  # next to the timed models

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
    """Size in bytes of the checkpoints that a training keeps; `weights`: bytes of its weights."""
    n_moments = 1 if recipe.optimizer.name == "sgd" else 2
    n_kept = recipe.keep_last if isinstance(recipe, TrainConfig) else 2
    has_average = isinstance(recipe, TrainConfig) and recipe.ema is not None
    return (n_kept + 1) * (1 + n_moments + has_average) * weights  # one more while it is written


def disk_use(run: RunDir) -> dict[str, int]:
    """Sizes in bytes of a run folder and of its removable files.

    bytes: all files, including unknown ones. superseded_bytes: files from earlier settings; hwnas
    uses them if these settings return, and for undo. timed_models_bytes: timed models, which are
    built again when needed.
    """
    use = {"bytes": 0, "superseded_bytes": 0, "timed_models_bytes": 0}
    for name, folders, files in os.walk(run.root):
        folder = Path(name)
        n_bytes = sum(_file_size(folder / file) for file in files)
        use["bytes"] += n_bytes
        if folder.is_relative_to(run.root / SUPERSEDED):
            use["superseded_bytes"] += n_bytes
        elif PLAN in files and REBUILT in folders:
            use["timed_models_bytes"] += _size(folder / REBUILT)
    return use


def disk_text(use: Mapping[str, int], command: str) -> str:
    """Describes a result of `disk_use`; names `command`, which deletes the removable files."""
    removable = {
        "superseded by other settings": use["superseded_bytes"],
        "in models that were timed": use["timed_models_bytes"],
    }
    named = [f"{_text(n)} {what}" for what, n in removable.items() if n]
    more = f", of which {' and '.join(named)} can be removed ({command})" if named else ""
    return _text(use["bytes"]) + more


def _file_size(path: Path) -> int:
    try:
        return os.lstat(path).st_size
    except OSError:  # removed in the meantime
        return 0


def _owned(stage: Stage, run: RunDir) -> list[Path]:
    return [run.path(name) for name in stage.owns if "*" not in name]


def _size(path: Path) -> int:
    """Size of a file, or of all files in a folder, in bytes; 0 if there is none."""
    files = [path] if path.is_file() else path.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file())


def _text(n_bytes: int) -> str:
    if n_bytes >= 1e9:
        return f"{n_bytes / 1e9:.1f} GB"
    return f"{n_bytes / 1e6:.0f} MB" if n_bytes >= 1e7 else f"{n_bytes / 1e6:.1f} MB"
