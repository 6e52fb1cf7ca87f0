"""Fine-tunes networks of the trained supernet, including the network that is their teacher."""

from __future__ import annotations

import logging
from functools import cached_property
from typing import TYPE_CHECKING

from hwnas.core.errors import UserError
from hwnas.core.progress import Progress, silent
from hwnas.core.store import write_bytes
from hwnas.core.tensor_file import require_sealed, sealed_tensors
from hwnas.interfaces import EightBits
from hwnas.pipeline.project import Project
from hwnas.pipeline.start import Inherited
from hwnas.pipeline.winners import load_network
from hwnas.spaces.arch import Arch
from hwnas.spaces.lowering import resolution

if TYPE_CHECKING:
    import torch

    from hwnas.training.finetune import TeacherSubnet

__all__ = ["Tuning"]

log = logging.getLogger(__name__)


class Tuning:
    """Fine-tunes networks of a run with its settings `finetune`.

    rounding: how training in 8 bits rounds (`exports.rounding_of`).
    """

    def __init__(self, project: Project, rounding: EightBits | None = None) -> None:
        self._project, self._rounding = project, rounding

    @cached_property
    def inherited(self) -> Inherited:
        """The weights from which fine-tuning starts."""
        return Inherited.of(self._project)

    @cached_property
    def teacher(self) -> TeacherSubnet:
        """The largest network, before or after its own fine-tuning (setting `finetune.teacher`)."""
        from hwnas.training.finetune import TeacherSubnet

        project, largest = self._project, self._project.space.largest()
        is_tuned = project.config.finetune.teacher == "tuned"
        network = self.network(largest) if is_tuned else self.inherited.calibrated(largest)
        return TeacherSubnet(network, resolution(project.space, largest))

    def network(self, arch: Arch, progress: Progress = silent) -> torch.nn.Module:
        """A fine-tuned network in eval mode. If it does not exist yet, it is trained and stored."""
        from hwnas.training.checkpoint import weights_bytes
        from hwnas.training.finetune import finetune

        project, path = self._project, self._project.files.network(arch)
        if path.exists() and (known := self._known(arch)) is not None:
            return known
        recipe = project.config.finetune
        is_pupil = recipe.teacher != "tuned" or arch != project.space.largest()
        tuned = finetune(
            self.inherited.network(arch),
            project.data,
            recipe,
            px=resolution(project.space, arch),
            teacher=self.teacher if is_pupil and recipe.has_teacher else None,
            seed=project.config.seed,
            rounding=self._rounding,
            checkpoints=project.files.network_steps(arch),
            progress=progress,
        )
        write_bytes(path, sealed_tensors(weights_bytes(tuned, project.metadata(arch))))
        return tuned

    def _known(self, arch: Arch) -> torch.nn.Module | None:
        """The stored network; None if there is none, or if its weights were changed."""
        path = self._project.files.network(arch)
        try:
            require_sealed(path, "the weights of a network were changed after hwnas wrote them")
            return load_network(self._project, arch)
        except UserError as error:
            log.warning("%s\n  the network is fine-tuned again", error)
            return None
