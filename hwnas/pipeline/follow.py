"""The other ranks under torchrun: wait for commands from rank 0 and run its stages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hwnas.core.env import use_threads
from hwnas.core.errors import UserError
from hwnas.core.memory import keep_freed_memory
from hwnas.core.progress import silent
from hwnas.core.rundir import RunDir
from hwnas.pipeline.config import load_config
from hwnas.pipeline.plan import Stage
from hwnas.pipeline.project import Project
from hwnas.pipeline.stored import stored_config
from hwnas.training.distributed import join

__all__ = ["follow"]


def follow(stages_of: Callable[[Project], list[Stage]]) -> None:
    """Runs the stages that rank 0 names, on the projects that it opens, until rank 0 ends.

    Raises:
        UserError: the run folder of rank 0 is not on this machine.
    """
    ranks = join()
    stages: dict[str, Stage] = {}
    while (word := ranks.hear()) is not None:
        if "stage" in word:
            stages[word["stage"]].run()
            continue
        run = RunDir(Path(word["root"]))
        run.check()
        if not stored_config(run).is_file():
            raise UserError(
                "the run folder is not on this machine",
                expected="the run folder of rank 0 under the same path",
                where=run.root,
                fix="put it on a file system that all machines share",
            )
        config = load_config(word["config"], where=stored_config(run))
        use_threads(config.threads)
        keep_freed_memory()
        project = Project(
            run, config, lambda stage: silent, ranks, beside=(run.root, run.root.absolute().parent)
        )
        stages = {stage.name: stage for stage in stages_of(project)}
