"""Reads and stores the sessions of a folder of timings.

A folder has the plan of its last session (`plan.json`), the plans of earlier sessions
(`plan-HASH.json`), the results of all sessions (`results-HASH.jsonl`), and the order of the
sessions before the last one (`sessions.json`).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hwnas.core.confined import read_regular
from hwnas.core.env import host_facts
from hwnas.core.errors import UserError
from hwnas.core.store import read_json, write_bytes, write_json
from hwnas.interfaces import DeviceSpec
from hwnas.latency.plan import PLAN, Plan, plan_data, plan_in
from hwnas.latency.results import MAX_RESULTS_BYTES
from hwnas.latency.samples import read_samples
from hwnas.latency.sections import ProfileConfig
from hwnas.measure.timed import Apart, Timed, fact_of

__all__ = ["Session", "best_chain", "joined", "known_in", "known_models", "store"]

log = logging.getLogger(__name__)

ORDER = "sessions.json"
SAME_PLAN = (
    *("runtime", "provider", "precision", "threads", "batch"),
    *("warmup_runs", "hot_samples", "turn_budget_s"),
)
"""Settings that must be equal in plans for their timings to be comparable."""


@dataclass(frozen=True)
class Session:
    """A folder with the plan and the complete results of one session."""

    plan: Plan
    content: dict[str, Any] = field(repr=False)
    timed: Timed = field(repr=False)


def known_models(device: DeviceSpec, config: ProfileConfig, folders: Sequence[Path]) -> set[str]:
    """Names of the models that earlier sessions have timed on a device with the same protocol.

    Only one of the `folders` counts: the one with the largest number of such models.
    """
    like = plan_data({"": b""}, device, config, seed=0)
    known = [_names(chain) for folder in folders for chain in _chains(folder, like, device)]
    return max(known, key=len, default=set())


def best_chain(
    folder: Path, whole: Mapping[str, Any], device: DeviceSpec, earlier: Sequence[Path]
) -> list[Session]:
    """The comparable sessions of one folder that timed the largest number of models of a plan.

    They are in the order of timing. The list is empty if no folder has a comparable session.

    whole: content of the plan.
    """
    chains = [chain for place in (folder, *earlier) for chain in _chains(place, whole, device)]
    return max(chains, key=lambda chain: (len(known_in(chain, whole)), -len(chain)), default=[])


def _chains(folder: Path, like: Mapping[str, Any], device: DeviceSpec) -> list[list[Session]]:
    """Lists of comparable sessions of a folder, in order; a new session can extend any list."""
    plans = [
        path for path in (folder / PLAN, *sorted(folder.glob("plan-*.json"))) if path.is_file()
    ]
    read = {path: _session(path, like, device) for path in plans}
    sessions = {one.plan.hash: one for one in read.values() if one is not None}
    try:
        order = [str(name) for name in read_json(folder / ORDER)["sessions"]]
    except (UserError, KeyError, TypeError):
        order = []
    stored = [sessions[name] for name in order if name in sessions]
    own = read.get(folder / PLAN)
    chains = [stored] if len(stored) == len(order) > 0 else []
    if own is not None and own.plan.hash not in order:
        chains += [[own], *([*chain, own] for chain in chains[:1])]
    return [chain for chain in chains if _can_be_joined(chain)]


def store(folder: Path, chain: Sequence[Session]) -> None:
    """Writes plans, results and order of sessions into a folder."""
    for session in chain:
        name, results = f"plan-{session.plan.hash}.json", session.plan.results
        if not (folder / name).is_file():
            write_json(folder / name, session.content)
        if not (folder / results.name).is_file():
            write_bytes(folder / results.name, read_regular(results, at_most=MAX_RESULTS_BYTES))
    write_json(folder / ORDER, {"schema_version": 1, "sessions": [s.plan.hash for s in chain]})


def _session(path: Path, like: Mapping[str, Any], device: DeviceSpec) -> Session | None:
    """The session of a plan file; None: incomplete, or of another device or other settings."""
    try:
        content = read_json(path)
        plan = plan_in(path.parent, content)
        if any(content[key] != like[key] for key in SAME_PLAN) or not plan.results.is_file():
            return None
        timed = Timed.of(read_samples(plan))
    except (UserError, KeyError, TypeError, AttributeError) as error:
        log.debug("%s: not used: %s", path, error)
        return None
    if device.transport == "local" and fact_of(timed.header, "cpu") != host_facts()["cpu"]:
        return None
    wanted = {item["id"]: item["sha256"] for item in like["items"]}
    other = {i["id"] for i in content["items"] if wanted.get(i["id"], i["sha256"]) != i["sha256"]}
    return Session(plan, content, timed.without(other))


def joined(chain: Sequence[Session]) -> Timed:
    """The timings of one or more sessions.

    Raises:
        Apart: the sessions cannot be compared.
    """
    found = chain[0].timed
    for session in chain[1:]:
        found = found.joined(session.timed)
    return found


def _can_be_joined(chain: Sequence[Session]) -> bool:
    try:
        joined(chain)
    except Apart:
        return False
    return True


def known_in(chain: Sequence[Session], whole: Mapping[str, Any]) -> set[str]:
    """Names of those models of a plan that sessions have timed with the same content."""
    timed = {(item["id"], item["sha256"]) for one in chain for item in one.content["items"]}
    return {item["id"] for item in whole["items"] if (item["id"], item["sha256"]) in timed}


def _names(chain: Sequence[Session]) -> set[str]:
    return {name for session in chain for name in session.plan.ids}
