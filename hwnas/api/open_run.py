"""Read access to a run folder: winner, front, result table, plots and networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwnas.analysis.verdict import Verdict
from hwnas.api.result import Folder, Listing, Point, closing_row, no_progress
from hwnas.api.run_plots import RunPlots
from hwnas.api.status import status
from hwnas.controller.result import Candidate, SearchResult
from hwnas.core.errors import UserError
from hwnas.core.html_table import html_table
from hwnas.core.metrics import MetricKey
from hwnas.interfaces import Evaluation
from hwnas.latency.table import LatencyTable
from hwnas.measure.winner_matrix import WinnerMatrix
from hwnas.pipeline.data_checks import doubts_known
from hwnas.pipeline.evaluators import JournaledEvaluator, evaluator
from hwnas.pipeline.opening import open_project
from hwnas.pipeline.outcomes import Check, NetworkResult, Results
from hwnas.pipeline.stored import require_search
from hwnas.pipeline.winners import load_network, networks, search_files, targets, winners_by_device
from hwnas.spaces.space import SearchSpace
from hwnas.studies.winner_verdict import winner_verdict

if TYPE_CHECKING:
    import torch

    from hwnas.nets.pyramid import FeaturePyramid
    from hwnas.nets.supernet import Supernet

__all__ = ["Run", "open_run"]


@dataclass(frozen=True, repr=False)
class Run(RunPlots):
    """A run folder and one of its searches; returned by `open_run` and `run`.

    Results that a stage has not made yet raise a `UserError` that names the missing file.
    """

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r}, search={self.search!r})"

    def __str__(self) -> str:
        done = [row["stage"] for row in self.status() if row["status"] == "done"]
        return f"{self.folder}: search {self.search!r}; done: {', '.join(done) or 'nothing'}"

    def _repr_html_(self) -> str:
        try:
            return html_table(self.shown, title=self.title)
        except UserError:  # not that far yet
            return html_table(self.status().rows, title=self.title)

    @property
    def folder(self) -> Path:
        """Path of the run folder."""
        return self.project.run.root

    @property
    def search(self) -> str:
        """Name of the search that this object shows."""
        return self.project.config.search.name

    @property
    def config(self) -> dict[str, Any]:
        """The configuration as JSON values."""
        return self.project.config.model_dump(mode="json")

    @property
    def space(self) -> SearchSpace:
        """The search space with the restrictions of the run."""
        return self.project.space

    def status(self) -> Listing:
        """Status of the stages: done, stale or missing."""
        return status(self.folder, settings={"search.name": self.search})

    # --- results of the search ----------------------------------------------------------------

    @cached_property
    def winner(self) -> Point:
        """The best arch within the limits; for the first device if each device has a winner."""
        return next(iter(self.winners.values()))

    @cached_property
    def winners(self) -> dict[str, Point]:
        """Maps each device to its winner; only the first device if all devices share one."""
        for target in targets(self.project):
            self._require(search_files(self.project, target).result.path)
        found = winners_by_device(self.project)
        return {device: self._point(candidate) for device, candidate in found.items()}

    @property
    def front(self) -> tuple[Point, ...]:
        """The entry of `fronts` for latency on the first device; without latency, for MACs."""
        key = MetricKey("latency_ms", self.project.first_device)
        return self.fronts[key if key in self.fronts else "macs"]

    @cached_property
    def fronts(self) -> dict[str, tuple[Point, ...]]:
        """Maps each metric key to the front of this cost and the score, cheapest arch first."""
        found: dict[str, tuple[Point, ...]] = {}
        for target in targets(self.project):
            fronts = self._result(target).fronts
            for key, front in fronts.items():
                if target is None or MetricKey.parse(key).device == target:
                    found[key] = tuple(map(self._point, front))
        return found

    @property
    def limits(self) -> dict[str, float]:
        """Maps each limited metric key to the maximum cost."""
        return self._result(targets(self.project)[0]).limits

    def labels(self, source: str = "supernet") -> list[Evaluation]:
        """Scored random subnets; `trained`: those that were trained stand-alone."""
        self._require(self.project.files.labels(source))
        return self.project.files.read_labels(source)

    # --- verified results ---------------------------------------------------------------------

    @cached_property
    def networks(self) -> tuple[NetworkResult, ...]:
        """The compared networks, on every device; the winner comes first."""
        return self._results.networks

    @cached_property
    def checks(self) -> tuple[Check, ...]:
        """The checks of the run, with their results."""
        return self._results.checks

    @property
    def winner_matrix(self) -> WinnerMatrix | None:
        """Latency of each device's winner on every device; None if all devices share one winner."""
        return self._results.winners

    @cached_property
    def verdict(self) -> Verdict | None:
        """Whether the winner is better than its baselines: a sentence and data.

        Uses test images once the networks are verified, and before that the validation images of
        the search. None if there is nothing to compare.
        """
        return winner_verdict(self.project)

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes on doubtful accuracies: images in two splits, or no better than guessing."""
        results = self.project.files.results
        is_made, n_classes = results.path.is_file(), self.space.macro.num_classes
        found = results.read().at_chance(n_classes) if is_made else ""
        return doubts_known(self.project) + (found,) * bool(found)

    def table(self) -> list[dict[str, Any]]:
        """The result table: one row per network and device."""
        return [network.summary() for network in self.networks]

    @property
    def shown(self) -> list[dict[str, Any]]:
        """`table()` as a terminal shows it."""
        return [*map(closing_row, self.networks)]

    def raise_for_checks(self) -> None:
        """Raises an error if a check failed or could not be judged.

        Raises:
            CheckFailed: names the failed checks.
            NotJudged: no check failed, but some could not be judged.
        """
        self._results.require(where=self.project.files.report)

    @property
    def title(self) -> str:
        """Headline of the table in `to_dict`: project and search."""
        return f"{self.project.config.name}, search {self.search!r}"

    def to_dict(self) -> dict[str, Any]:
        """JSON values: result table, checks, predictor and report, as printed by `hwnas run`."""
        return {
            "table": self.table(),
            "checks": [check.summary() for check in self.checks],
            "predictor": self._results.predictor,
            "verdict": None if (verdict := self.verdict) is None else verdict.summary(),
            "winners": None if (matrix := self.winner_matrix) is None else matrix.summary(),
            "report": str(self.project.files.report),
            "notes": list(self.notes),
        }

    def latency_table(self, device: str | None = None) -> LatencyTable:
        """The table of a device; default: the first one."""
        name = device or self.project.first_device
        self._require(self.project.files.table(name))
        return self.project.files.read_table(name)

    def supernet(self) -> Supernet:
        """The trained supernet."""
        return self.project.supernet()

    def network(self, role: str = "winner") -> torch.nn.Module:
        """A fine-tuned network in eval mode: `winner`, `largest`, `smallest`, `random search`...

        Raises:
            UserError: no such role, or stage `finetune` is not done.
        """
        self._require(self.project.files.roles)
        archs = networks(self.project)
        if role not in archs:
            raise UserError("no such network", expected=f"one of {', '.join(archs)}", found=role)
        return load_network(self.project, archs[role])

    def features(self, role: str = "winner", strides: Sequence[int] = ()) -> FeaturePyramid:
        """The feature maps of `network(role)`: see `nets.features.features_only`."""
        from hwnas.nets.features import features_only

        return features_only(self.network(role), strides)

    @property
    def _results(self) -> Results:
        self._require(self.project.files.results.path)
        return self.project.files.results.read()

    def _result(self, target: str | None) -> SearchResult:
        file = search_files(self.project, target).result
        self._require(file.path)
        return file.read()

    def _point(self, candidate: Candidate) -> Point:
        return Point(
            arch=candidate.arch,
            choices=self.space.view(candidate.arch),
            score=candidate.score,
            accuracy=self._top1(candidate),
            costs=candidate.costs,
        )

    def _top1(self, candidate: Candidate) -> float | None:
        """The stored top-1; for results of earlier versions, that of the journal."""
        if candidate.accuracy is not None:
            return candidate.accuracy.top1
        if self._known is None or not self._known.is_known(candidate.arch):
            return None
        return self._known.evaluate(candidate.arch).top1

    @cached_property
    def _known(self) -> JournaledEvaluator | None:
        has_supernet = self.project.files.supernet.is_file()
        return evaluator(self.project) if has_supernet else None


def open_run(folder: Folder, *, search: str | None = None) -> Run:
    """Opens a run folder for reading; changes nothing in it.

    search: name of the search; default: the last one.

    Raises:
        UserError: not a run folder, a configuration that cannot be read, or no such search.
    """
    with open_project(
        Path(folder),
        changes={"search.name": search} if search else {},
        progress_for=no_progress,
        command="hwnas status",
        read_only=True,
        as_recorded=True,
    ) as project:
        if search is not None:
            require_search(project.run, search)
        return Run(project)
