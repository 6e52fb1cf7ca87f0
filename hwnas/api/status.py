"""`hwnas status`: what is done in a run folder, and what would run."""

from __future__ import annotations

from pathlib import Path

from hwnas.api.result import Folder, Listing, Settings, no_progress
from hwnas.pipeline.engine import data_changes, plan_stages
from hwnas.pipeline.graph import stages_of
from hwnas.pipeline.project import open_project

__all__ = ["plan", "status"]


def status(folder: Folder, *, settings: Settings = None) -> Listing:
    """What is done, stale or missing in a run folder, with the cost of each stage.

    The fact `notes` says how the data changed since stages read them, or that they are not here.
    """
    return plan(folder, settings=settings)


def plan(folder: Folder, *, config: str | None = None, settings: Settings = None) -> Listing:
    """What would run, why, and what it costs, if `folder` had this configuration: `--dry-run`."""
    with open_project(
        Path(folder),
        config=config,
        changes=settings,
        progress_for=no_progress,
        command="hwnas status",
        read_only=True,
    ) as project:
        ledger = project.run.ledger()
        plans = plan_stages(stages_of(project), project.run)
        notes = data_changes(plans)
        if absent := project.source.absent:
            notes.append(f"the data are not here, and not compared: {absent}")
        rows = [
            {
                "stage": plan.stage.name,
                "status": plan.status,
                "cost": plan.stage.cost,
                "seconds": ledger[plan.stage.name].seconds if plan.stage.name in ledger else None,
            }
            for plan in plans
        ]
        root = str(project.run.root)
        return Listing(rows, title=root, facts={"run": root, "notes": notes})
