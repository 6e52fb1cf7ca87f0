"""The network that fine-tuned networks learn from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hwnas.pipeline.project import Project
from hwnas.spaces.lowering import resolution

if TYPE_CHECKING:
    from hwnas.nets.supernet import Supernet
    from hwnas.training.finetune import TeacherSubnet

__all__ = ["teacher_of"]


def teacher_of(project: Project, supernet: Supernet) -> TeacherSubnet:
    """The largest network of the trained supernet, the teacher of the others."""
    from hwnas.training.finetune import TeacherSubnet

    calibration, largest = project.config.finetune.calibration, project.space.largest()
    images = project.data.calibration_batches(calibration.n_batches, calibration.batch_size)
    network = supernet.extract(largest, recalibrate_on=images)
    return TeacherSubnet(network, resolution(project.space, largest))
