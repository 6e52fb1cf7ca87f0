"""Sentences of the report on searches: re-measurement, and the most probable arch of a policy."""

from __future__ import annotations

from hwnas.controller.result import Candidate, SearchResult
from hwnas.pipeline.project import Project
from hwnas.pipeline.winners import search_files, targets

__all__ = ["mode_note", "search_facts"]

WHY = (
    "a policy maximises the mean reward of its samples, so its most probable arch can be worse than"
    " some samples; the winner is the best of all"
)


def search_facts(project: Project) -> dict[str, str]:
    """Sentences on re-measurement and policy by topic; for each device that has its own search."""
    found: dict[str, str] = {}
    for target in (searched := targets(project)):
        files, device = search_files(project, target), target or project.first_device
        if (remeasured := files.remeasurement.read_if_there()) is not None:
            found[f"re-measured on {device}"] = remeasured.reason
        if note := mode_note(files.result.read()):
            where = f" for {device}" if len(searched) > 1 else ""
            found[f"most probable arch of the policy{where}"] = note
    return found


def mode_note(result: SearchResult) -> str:
    """How the most probable arch of the policy compares with the winner; "" without a policy."""
    mode, winner = result.mode, result.winner
    if mode is None:
        return ""
    if mode.arch == winner.arch:
        return "the winner"
    if over := _exceeded(result, mode):
        return f"{mode.arch.key}, not the winner: it exceeds {over}"
    if not mode.feasible:
        return f"{mode.arch.key}, not the winner: it cannot be evaluated"
    if mode.supernet is None and winner.supernet is not None:
        return (
            f"{mode.arch.key}, not the winner: it was not evaluated, because"
            f" {result.n_evaluations} archs were more promising"
        )
    if (gap := winner.score - mode.score) <= 0:
        higher = "equal" if gap == 0 else f"{-gap:.3g} higher"
        return (
            f"{mode.arch.key}, not the winner although its score is {higher}: the search found the"
            " winner before it, or the winner was selected by re-measured latencies"
        )
    return (
        f"{mode.arch.key}, not the winner: its score is {gap:.3g} lower"
        f" ({WHY} {result.n_predictions:,} proposals)"
    )


def _exceeded(result: SearchResult, mode: Candidate) -> str:
    """The limits that the arch exceeds, and by how much."""
    shares = {
        key: mode.costs[key] / limit for key, limit in result.limits.items() if key in mode.costs
    }
    return ", ".join(
        f"the limit on {key} by {share - 1:.1%}" for key, share in shares.items() if share > 1
    )
