"""Runs the work of a stage after setting up threads, ranks and data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hwnas.core.memory import return_freed_memory
from hwnas.core.progress import Progress
from hwnas.pipeline.data_source import DataSource
from hwnas.pipeline.project import Project
from hwnas.training.agreement import agree
from hwnas.training.identity import SPLITS

__all__ = ["task"]


def task(
    project: Project,
    stage: str,
    work: Callable[[Project, Progress], None],
    *,
    together: bool = False,
    reads_data: bool = True,
) -> Callable[[], None]:
    """Wraps `work` as the function that a stage runs, with the project's number of threads.

    Before `work`, it records the data in the run (`reads_data`). With `together`, all ranks run it,
    after a check that they have the same data.
    """

    def go() -> None:
        import torch

        torch.set_num_threads(project.config.threads)
        if together:
            project.ranks.tell({"stage": stage})
        if reads_data:
            if together:
                agree(project.ranks, lambda: _facts(project.source), subject="data")
            if project.ranks.leads:
                project.source.remember()
        work(project, project.progress(stage))
        return_freed_memory()

    return go


def _facts(source: DataSource) -> dict[str, Any]:
    """Facts that must be equal on all ranks."""
    info, identity = source.info, source.identity()
    facts: dict[str, Any] = {f"n_images {split}": info.n_images[split] for split in SPLITS}
    facts["class_names"] = list(info.class_names)
    parts = {} if identity is None else identity.parts
    digests = {parts.get(split, split): digest for split, digest in info.digests.items()}
    facts["content"] = [f"{part} {digest[:8]}" for part, digest in digests.items()]
    return facts
