"""The plan that the device kit executes, and the folder it travels in."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hwnas.core.confined import holds
from hwnas.core.store import write_json
from hwnas.interfaces import DeviceSpec
from hwnas.latency.sections import ProfileConfig

__all__ = ["PROTOCOL", "Plan", "plan_hash", "write_plan"]

PROTOCOL = "interleaved-3"  # of export/bench_protocol.py; samples of another one are refused
STOPPING_RULES = ("rounds", "min_rounds", "time_budget_s", "target_error")


@dataclass(frozen=True)
class Plan:
    """A plan on disk. Its results file is named after its hash, so plans never share samples."""

    path: Path
    results: Path
    hash: str
    ids: tuple[str, ...]


def write_plan(
    models: Mapping[str, bytes],
    device: DeviceSpec,
    folder: Path,
    config: ProfileConfig,
    *,
    seed: int,
    reference: str | None = None,
) -> Plan:
    """Write serialised ONNX models by id, and `plan.json`, into `folder`. Deterministic.

    The models are of the device's batch and precision. `reference`: id of the model that tells how
    the machine's pace changes; the last one if None, which in our plans is a whole network.
    """
    items = []
    for name, model in models.items():
        path = folder / "models" / f"{name}.onnx"
        if not holds(path, model):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)  # it may have other names (hard links)
            path.write_bytes(model)  # no fsync, 4 ms each: the kit checks every sha256
        digest = hashlib.sha256(model).hexdigest()
        items.append({"id": name, "file": f"models/{path.name}", "sha256": digest})
    plan: dict[str, Any] = {
        "schema_version": 1,
        "runtime": device.runtime,
        "provider": device.provider,
        "precision": device.precision,
        "threads": device.threads,
        "batch": device.batch,
        "seed": seed,
        "rounds": config.rounds,
        "min_rounds": config.min_rounds,
        "time_budget_s": config.time_budget_s,
        "target_error": config.target_error,
        "warmup_runs": config.warmup_runs,
        "hot_samples": config.hot_samples,
        "turn_budget_s": config.turn_budget_s,
        "reference": reference if reference is not None else items[-1]["id"],
        "items": items,
    }
    write_json(folder / "plan.json", plan)
    digest = plan_hash(plan)
    return Plan(folder / "plan.json", folder / f"results-{digest}.jsonl", digest, tuple(models))


def plan_hash(plan: Mapping[str, Any]) -> str:
    """The kit's hash of a plan (export/plan.schema.json): the stopping rules are left out."""
    kept = {key: value for key, value in plan.items() if key not in STOPPING_RULES}
    text = json.dumps([PROTOCOL, kept], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
