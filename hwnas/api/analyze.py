"""`hwnas analyze`: how reliable a ranking of archs is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hwnas.analysis.pruning import Pruning
from hwnas.analysis.verdict import Verdict
from hwnas.api.options import refuse_unused, require_place
from hwnas.api.result import Folder, no_progress
from hwnas.core.errors import UserError
from hwnas.core.records import dump
from hwnas.pipeline.opening import open_project
from hwnas.studies import rank_analysis
from hwnas.studies.rank_analysis import Analysis
from hwnas.studies.winner_verdict import winner_verdict

__all__ = ["RankingCheck", "analyze"]


@dataclass(frozen=True)
class RankingCheck:
    """A ranking compared with ground truth, and the pruned space if requested.

    winner: for a run folder, the comparison of its winner with baselines; None if there is nothing
        to compare.
    """

    analysis: Analysis
    pruning: Pruning | None
    winner: Verdict | None = None

    @property
    def title(self) -> str:
        """Headline of the table in `to_dict`: the ranking, and the truth by which it is judged."""
        return f"{self.analysis.ranking} against {self.analysis.truth}"

    @property
    def verdict(self) -> tuple[str, ...]:
        """Conclusions, in sentences."""
        return self.analysis.verdict

    def to_dict(self) -> dict[str, Any]:
        """JSON values; rank agreement in the top fractions is in `"table"`."""
        rows = [
            {
                "among true top": f"{part.top_fraction:.0%}",
                "n": part.n,
                "kendall_tau": part.kendall_tau.value,
                "low": part.kendall_tau.low,
                "high": part.kendall_tau.high,
                "spearman": part.spearman.value,
                "pearson": part.pearson.value,
            }
            for part in self.analysis.ranks.correlations
        ]
        return {
            "table": rows,
            **dump(self.analysis, versioned=False),
            "pruning": None if self.pruning is None else dump(self.pruning, versioned=False),
            "winner": None if self.winner is None else self.winner.summary(),
        }


# long: every argument is documented; the body is short
def analyze(
    folder: Folder | None = None,
    *,
    records: Folder | None = None,
    reader: str | None = None,
    target: str | None = None,
    ranking: str | None = None,
    truth: Sequence[Folder] = (),
    table: Sequence[str] = (),
    prune: Folder | None = None,
    prune_fraction: float | None = None,
) -> RankingCheck:
    """Checks how reliable a ranking is: rank agreement, precision at the top, pruning, biases.

    For a run folder, also compares the winner with its baselines.

    Args:
        folder: a run folder; either this or `records` is required.
        records: a file of labelled archs.
        reader: format of `records`; default: detected.
        target: column of `records` by which the ranking is judged.
        ranking: `predictor`, `supernet`, `macs`, `params`, or a column of `records`. Default: the
            predictor; with `records`: MACs.
        truth: labels files by which the ranking is judged; several are averaged. Default: the
            labels of the run; for the ranking `supernet`, its stand-alone labels.
        table: with `records`: latency tables, for the bias towards slow archs.
        prune: file to which the section `restrict:` of the pruned space is written.
        prune_fraction: share of archs to remove; default: the largest that is safe.

    Raises:
        UserError: not exactly one of `folder` and `records`, or too few archs have both values.
        CheckFailed: the ranking is not reliable enough for pruning.
    """
    require_place(prune)
    if (folder is None) == (records is None):
        given = "neither" if folder is None else "both"
        raise UserError(
            "analyze needs one source of archs",
            expected="RUN (in Python `folder`), or --records FILE (in Python `records`)",
            found=given,
        )
    if records is not None:
        refuse_unused(
            {"--truth": truth},
            to="--records, whose --target is the truth",
            fix="leave --truth out; --target COLUMN selects another truth",
        )
        winner = None
        found, pair = rank_analysis.analyze_records(
            Path(records), ranking or "macs", target=target, tables=table, reader=reader
        )
    else:
        assert folder is not None
        refuse_unused(
            {"--reader": reader, "--target": target, "--table": table},
            to="a run folder, only to --records",
            fix="leave it out; --truth FILE has better labels, and the tables are those of the run",
        )
        with open_project(
            Path(folder),
            progress_for=no_progress,
            command="hwnas analyze",
            read_only=True,
            as_recorded=True,
        ) as project:
            files = [Path(path) for path in truth]
            found, pair = rank_analysis.analyze_run(project, ranking or "predictor", files)
            winner = winner_verdict(project)
    if prune is None and prune_fraction is None:
        return RankingCheck(found, None, winner)
    pruning = rank_analysis.prune(found, pair, prune_fraction)
    if prune is not None:
        rank_analysis.write_pruned(Path(prune), pruning)
    return RankingCheck(found, pruning, winner)
