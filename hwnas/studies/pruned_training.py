"""Second training rounds in the pruned and in the whole space (2010.08219).

Both rounds are separate run folders in `rounds/`, with equal configuration, start and number of
steps. Only the space differs. Every verb can be used on them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hwnas.core.command import command_line
from hwnas.core.errors import UserError
from hwnas.core.progress import Progress
from hwnas.core.stats import Z90
from hwnas.core.store import write_text
from hwnas.core.yaml_data import sealed_yaml
from hwnas.interfaces import Evaluation
from hwnas.pipeline.duration import Durations
from hwnas.pipeline.engine import execute
from hwnas.pipeline.evaluators import evaluator
from hwnas.pipeline.graph import stages_of
from hwnas.pipeline.opening import open_project
from hwnas.pipeline.project import Project
from hwnas.spaces.choice import Value

__all__ = ["Comparison", "Round", "rounds_s", "train_rounds"]


@dataclass(frozen=True)
class Round:
    """One round: accuracies with the weights of its supernet, on the validation split.

    n_images: number of images of the validation split.
    mean_top1, best_top1: over random archs of its own space, those that stage `label` scores.
    common_top1: mean over random archs of the pruned space, the same for both rounds.
    """

    name: str
    folder: str
    n_archs_in_space: int
    steps: int
    train_s: float
    n_images: int
    mean_top1: float
    best_top1: float
    common_top1: float


@dataclass(frozen=True)
class Comparison:
    """The two rounds. `gain` is pruned minus unpruned top-1 of the same archs, with 90 % interval.

    The interval is over archs; it does not include the variation between training seeds.
    """

    pruned: Round
    unpruned: Round
    gain: float
    gain_interval: tuple[float, float]
    n_common: int


def train_rounds(
    first: Project,
    restrict: dict[str, tuple[Value, ...]],
    *,
    steps: int | None,
    is_fresh: bool,
    progress_for: Callable[[str], Progress],
) -> Comparison:
    """Trains, scores and compares both rounds; reuses existing results.

    Args:
        first: the run with the supernet from which both rounds start.
        restrict: values to keep, by choice.
        steps: steps of each round; None: as in the first run.
        is_fresh: whether to start from random weights instead.
        progress_for: progress of the stages.

    Raises:
        UserError: the first run has no trained supernet.
    """
    if not is_fresh and not first.files.supernet.is_file():
        raise UserError(
            "there is no supernet to start the second round from",
            where=first.files.supernet,
            fix=command_line("train", first.run.root) + ", or --fresh",
        )
    common: list[Evaluation] = []
    rounds: list[Round] = []
    top1: list[NDArray[np.float64]] = []
    for name, kept in (("pruned", restrict), ("unpruned", {})):
        _, folder = first.files.training_round(name)
        with open_project(
            folder,
            config=str(_config(first, name, kept, steps=steps, is_fresh=is_fresh)),
            progress_for=progress_for,
            command="hwnas prune",
        ) as project:
            execute(
                stages_of(project),
                project.run,
                only=["train", "label"],
                outlook=project.outlook,
            )
            own = project.files.read_labels()
            common = common or own
            scorer = evaluator(project)
            top1.append(np.array([scorer.evaluate(e.arch).top1 for e in common]))
            rounds.append(_round(project, name, own, top1[-1]))
    differences = top1[0] - top1[1]
    gain = float(differences.mean())
    half = Z90 * float(differences.std(ddof=1)) / len(differences) ** 0.5
    pruned, unpruned = rounds
    return Comparison(pruned, unpruned, gain, (gain - half, gain + half), len(differences))


def rounds_s(first: Project, *, steps: int | None) -> float | None:
    """Estimated seconds of `train_rounds`: both trainings, and three scorings of the archs."""
    planned = Durations(first)
    train, label = planned.train(), planned.label()
    if train is None or label is None:
        return None
    share = 1.0 if steps is None else steps / first.config.train.steps
    return 2 * share * train + 3 * label


def _config(
    first: Project,
    name: str,
    restrict: dict[str, tuple[Value, ...]],
    *,
    steps: int | None,
    is_fresh: bool,
) -> Path:
    """Writes the configuration of a round; returns its path."""
    plain = first.config.model_dump(mode="json")
    plain["name"] = f"{first.config.name}-{name}"
    plain["restrict"] |= {choice: list(values) for choice, values in restrict.items()}
    if steps is not None:
        plain["train"]["steps"] = steps
    if not is_fresh:
        plain["supernet"]["init"] = str(first.files.supernet.resolve())
    path, _ = first.files.training_round(name)
    write_text(path, sealed_yaml(plain))
    return path


def _round(
    project: Project, name: str, own: list[Evaluation], common: NDArray[np.float64]
) -> Round:
    scores = [evaluation.top1 for evaluation in own]
    return Round(
        name=name,
        folder=str(project.run.root),
        n_archs_in_space=project.space.size(),
        steps=project.config.train.steps,
        train_s=project.run.ledger()["train"].seconds,
        n_images=own[0].n_images,
        mean_top1=float(np.mean(scores)),
        best_top1=max(scores),
        common_top1=float(common.mean()),
    )
