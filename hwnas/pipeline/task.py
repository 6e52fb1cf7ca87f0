"""What a stage runs: threads, ranks and data in order first, then its work."""

from __future__ import annotations

from collections.abc import Callable

from hwnas.core.progress import Progress
from hwnas.pipeline.project import Project
from hwnas.training.agreement import agree

__all__ = ["task"]


def task(
    project: Project,
    stage: str,
    work: Callable[[Project, Progress], None],
    *,
    together: bool = False,
    reads_data: bool = True,
) -> Callable[[], None]:
    """What a stage runs: `work` with the project's threads; `together`: on all ranks.

    The run remembers the data before they are worked with, and all ranks must see the same.
    """

    def go() -> None:
        import torch

        torch.set_num_threads(project.config.threads)
        if together:
            project.ranks.tell({"stage": stage})
        if reads_data:
            if together:
                agree(project.ranks, project.source.facts, subject="data")
            if project.ranks.leads:
                project.source.remember()
        work(project, project.progress_for(stage))

    return go
