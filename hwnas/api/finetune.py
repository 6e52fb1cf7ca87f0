"""`hwnas finetune`: fine-tunes the winner and its baselines."""

from __future__ import annotations

from hwnas.api.result import Folder, Listing, ProgressFor, Settings, no_progress
from hwnas.api.stage import bring_up_to_date, of_known_search
from hwnas.pipeline.project import Project

__all__ = ["finetune"]


def finetune(
    folder: Folder,
    *,
    config: str | None = None,
    search: str | None = None,
    settings: Settings = None,
    progress: ProgressFor = no_progress,
) -> Listing:
    """Fine-tunes the winner and the baselines.

    search: name of the search; default: the last one.
    """
    return bring_up_to_date(
        folder,
        "finetune",
        config=config,
        changes=of_known_search(folder, search, settings),
        progress=progress,
        found=_tuned,
    )


def _tuned(project: Project) -> Listing:
    from hwnas.pipeline.standalone import read_standalone
    from hwnas.pipeline.winners import networks

    tuned = [{"network": role, "arch": arch.key} for role, arch in networks(project).items()]
    return Listing([alone.summary() for alone in read_standalone(project)] + tuned)
