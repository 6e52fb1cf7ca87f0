"""`hwnas prune`: second training rounds, in the pruned and in the whole space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hwnas.analysis.pruning import Pruning
from hwnas.api.result import Folder, Listing, ProgressFor, Row, no_progress
from hwnas.core.records import dump
from hwnas.core.stats import accuracy_text
from hwnas.pipeline.opening import open_project
from hwnas.pipeline.project import Project
from hwnas.studies import rank_analysis
from hwnas.studies.pruned_training import Comparison, Round, rounds_s, train_rounds

__all__ = ["PrunedTraining", "prune", "prune_plan"]


@dataclass(frozen=True)
class PrunedTraining:
    """Comparison of second training rounds in the pruned and in the whole space."""

    ranking: str
    pruning: Pruning
    compared: Comparison

    @property
    def title(self) -> str:
        """Headline of the table in `to_dict`: the ranking by which the space was pruned."""
        return f"pruned by {self.ranking}"

    @property
    def shown(self) -> list[Row]:
        """The rounds for a terminal: accuracies in percent, the best with its standard error."""
        return [_in_percent(one) for one in (self.compared.pruned, self.compared.unpruned)]

    def to_dict(self) -> dict[str, Any]:
        """JSON values; the rounds are in `"table"`."""
        rounds = (self.compared.pruned, self.compared.unpruned)
        return {
            "table": [dump(one, versioned=False) for one in rounds],
            "gain": self.compared.gain,
            "gain_interval": list(self.compared.gain_interval),
            "n_common": self.compared.n_common,
            "pruning": dump(self.pruning, versioned=False),
        }


def _in_percent(one: Round) -> Row:
    found: dict[str, Any] = dump(one, versioned=False)
    n = found.pop("n_images")
    texts = {key: f"{found[key]:.2%}" for key in ("mean_top1", "common_top1")}
    return found | texts | {"best_top1": accuracy_text(one.best_top1, n)}


def prune(
    folder: Folder,
    *,
    ranking: str = "predictor",
    truth: Sequence[Folder] = (),
    fraction: float | None = None,
    steps: int | None = None,
    fresh: bool = False,
    progress: ProgressFor = no_progress,
) -> PrunedTraining:
    """Prunes the space by a ranking, then trains in it and, at equal cost, in the whole space.

    The rounds are run folders in `rounds/`, which other verbs can use.

    Args:
        folder: the run folder.
        ranking: the ranking for the pruning: `predictor`, `supernet`, `macs` or `params`.
        truth: labels files by which the ranking is judged; several are averaged. Default: the
            labels of the run; for the ranking `supernet`, its stand-alone labels.
        fraction: share of archs to remove; default: the largest that is safe.
        steps: training steps of each round; default: as in the first round.
        fresh: whether both rounds start from random weights instead of the weights of the run.
        progress: shows the progress.

    Raises:
        UserError: there is no supernet to start from.
        CheckFailed: the ranking is not reliable enough for pruning.
    """
    with open_project(
        Path(folder), progress_for=progress, command="hwnas prune", read_only=True
    ) as project:
        found, pruning = _pruning(project, ranking, truth, fraction)
        compared = train_rounds(
            project, pruning.restrict, steps=steps, is_fresh=fresh, progress_for=progress
        )
    return PrunedTraining(found.ranking, pruning, compared)


def prune_plan(
    folder: Folder,
    *,
    ranking: str,
    truth: Sequence[Folder],
    fraction: float | None,
    steps: int | None = None,
) -> Listing:
    """Lists the values of choices that `prune` would drop.

    The fact `left_s` is the time of both rounds in seconds; None if unknown.
    """
    with open_project(
        Path(folder), progress_for=no_progress, command="hwnas prune", read_only=True
    ) as project:
        _, pruning = _pruning(project, ranking, truth, fraction)
        left_s = rounds_s(project, steps=steps)
    return Listing(
        [dump(value, versioned=False) for value in pruning.dropped],
        facts={"pruning": dump(pruning, versioned=False), "left_s": left_s},
    )


def _pruning(
    project: Project, ranking: str, truth: Sequence[Folder], fraction: float | None
) -> tuple[rank_analysis.Analysis, Pruning]:
    """The ranking compared with its truth, and the pruned space."""
    found, pair = rank_analysis.analyze_run(project, ranking, [Path(path) for path in truth])
    return found, rank_analysis.prune(found, pair, fraction)
