"""Times whole networks on a device, together with networks of the device's table."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from hwnas.core.progress import Progress, silent
from hwnas.latency.table import LatencyTable
from hwnas.measure.drift import can_judge
from hwnas.measure.profile import Timings, time_models
from hwnas.pipeline.project import Project

__all__ = ["time_beside_table"]


def time_beside_table(
    project: Project,
    device: str,
    models: Mapping[str, Path | bytes],
    table: LatencyTable,
    folder: Path,
    *,
    progress: Progress = silent,
) -> Timings:
    """Times `models`, which maps names to model files, and measures the machine's pace.

    An interrupted call resumes from the timings in `folder`. If the pace is too far from 1 for
    checks, these timings are deleted, and the next call measures again.
    """
    timings = time_models(
        models,
        project.devices[device],
        folder,
        project.config.profile,
        table=table,
        space=project.space,
        seed=project.config.seed,
        progress=progress,
        transport=project.transport(device),
    )
    if not can_judge(timings.pace):
        shutil.rmtree(folder)
    return timings
