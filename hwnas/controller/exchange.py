"""Exchanges winners between devices if the winner of one device is better for another one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from hwnas.controller.result import Candidate, SearchResult
from hwnas.core.metrics import MetricKey

__all__ = ["exchanged"]


def exchanged(results: Mapping[str, SearchResult]) -> dict[str, SearchResult]:
    """Replaces winners that the winner of another device beats; returns the results by device.

    A winner is replaced by one that meets all limits of its device, has a lower estimated latency
    on it, and has a higher score. If several qualify, the best one is used. `found_by` of the
    result names the device whose search found it. Searches of one project use the same prices and
    scores, so no further computation is needed.
    """
    return {device: _best(device, results) for device in results}


def _best(device: str, results: Mapping[str, SearchResult]) -> SearchResult:
    own = results[device]
    rivals = {
        other: result.winner
        for other, result in results.items()
        if _beats(result.winner, own.winner, device) and _keeps(result.winner, own.limits)
    }
    if not rivals:
        return own
    found_by = max(rivals, key=lambda other: rivals[other].score)
    winner = replace(rivals[found_by], feasible=True)
    top = (winner, *(one for one in own.top if one.arch != winner.arch))
    return replace(own, winner=winner, top=top, found_by=found_by)


def _beats(rival: Candidate, winner: Candidate, device: str) -> bool:
    key = MetricKey("latency_ms", device)
    return (
        key in rival.costs
        and key in winner.costs
        and rival.costs[key] < winner.costs[key]
        and rival.score > winner.score
    )


def _keeps(candidate: Candidate, limits: Mapping[str, float]) -> bool:
    return all(key in candidate.costs and candidate.costs[key] <= limits[key] for key in limits)
