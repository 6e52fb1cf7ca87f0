"""The network that fine-tuned networks learn from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hwnas.pipeline.start import Inherited
from hwnas.spaces.lowering import resolution

if TYPE_CHECKING:
    from hwnas.training.finetune import TeacherSubnet

__all__ = ["teacher_of"]


def teacher_of(inherited: Inherited) -> TeacherSubnet:
    """The largest network of the trained supernet, the teacher of the others."""
    from hwnas.nets.bn import recalibrate_in_place
    from hwnas.training.finetune import TeacherSubnet
    from hwnas.training.images import resize

    project = inherited.project
    calibration, largest = project.config.finetune.calibration, project.space.largest()
    px, network = resolution(project.space, largest), inherited.network(largest)
    images = project.data.calibration_batches(calibration.n_batches, calibration.batch_size)
    seen = [resize(batch, px) for batch in images]
    return TeacherSubnet(recalibrate_in_place(network, seen), px)
