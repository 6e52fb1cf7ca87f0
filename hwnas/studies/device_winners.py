"""The winners of all devices for the report, with estimates and timings on every device."""

from __future__ import annotations

from hwnas.pipeline.outcomes import Results
from hwnas.pipeline.project import Project
from hwnas.pipeline.winners import winners_by_device
from hwnas.reporting.sections.devices import Winners

__all__ = ["device_winners"]


def device_winners(project: Project, results: Results | None) -> Winners | None:
    """The winners side by side; None if all devices share one. `results`: from stage `verify`."""
    found = winners_by_device(project)
    if len(found) < 2:
        return None
    views = [project.space.view(candidate.arch) for candidate in found.values()]
    values = {
        choice.name: tuple(str(view.get(choice.name, "-")) for view in views)
        for choice in project.space.choices
    }
    matrix = results.winners if results is not None else None
    if matrix is not None and matrix.devices != tuple(found):
        matrix = None  # nothing can be timed on some of the devices
    return Winners(
        devices=tuple(found),
        forecast_ms=matrix.forecast_ms
        if matrix
        else tuple(
            tuple(candidate.latency_ms(device) for candidate in found.values()) for device in found
        ),
        macs=tuple(int(candidate.costs["macs"]) for candidate in found.values()),
        score=tuple(candidate.score for candidate in found.values()),
        differences={name: row for name, row in values.items() if len(set(row)) > 1},
        measured_ms=matrix.measured_ms if matrix else (),
        notes=matrix.notes() if matrix else (),
    )
