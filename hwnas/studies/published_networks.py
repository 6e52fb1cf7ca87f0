"""The reference networks of a run for the report."""

from __future__ import annotations

from collections.abc import Container

from hwnas.pipeline.project import Project
from hwnas.pipeline.stages.references import OWN
from hwnas.reporting.sections.references import Published, References

__all__ = ["published_networks"]


def published_networks(project: Project, done: Container[str]) -> tuple[References, ...]:
    """Published networks on every device; none before stage `references` is done."""
    if f"references/{project.config.search.name}" not in done:
        return ()
    found = project.files.references.results.read()
    trained = {(one.name, one.px): one.test_top1 for one in found.trained}
    return tuple(
        References(
            device.device,
            device.own_ms[OWN],
            tuple(
                Published(
                    row.name,
                    row.px,
                    row.measured_ms,
                    row.published_top1,
                    row.published_px,
                    trained.get((row.name, row.px)),
                    row.why,
                )
                for row in device.networks
            ),
        )
        for device in found.devices
    )
