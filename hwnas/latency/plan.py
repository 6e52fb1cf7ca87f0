"""The plan that the device kit executes, and its folder."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hwnas.core.confined import holds, read_regular
from hwnas.core.store import write_json
from hwnas.interfaces import DeviceSpec
from hwnas.latency.sections import ProfileConfig

__all__ = [
    "PLAN",
    "PROTOCOL",
    "Plan",
    "TimedFile",
    "plan_data",
    "plan_hash",
    "plan_in",
    "write_plan",
]

PROTOCOL = "interleaved-3"  # of export/bench_protocol.py; other samples are refused
PLAN = "plan.json"
MAX_MODEL_BYTES = 1 << 31  # limit of ONNX files
SUFFIXES = {"litert": ".tflite"}  # by runtime; else .onnx
STOPPING_RULES = ("rounds", "min_rounds", "time_budget_s", "target_error")


@dataclass(frozen=True)
class Plan:
    """A plan on disk. Its results file is named after its hash, so plans never share samples."""

    path: Path
    results: Path
    hash: str
    ids: tuple[str, ...]


@dataclass(frozen=True)
class TimedFile:
    """A model as it is deployed: its content, and the suffix by which runtimes identify it."""

    content: bytes
    suffix: str

    @staticmethod
    def of(path: Path) -> TimedFile:
        """The file of a model; an .xml and its .bin become one .zip with deterministic bytes."""
        if path.suffix != ".xml":
            return TimedFile(read_regular(path, at_most=MAX_MODEL_BYTES), path.suffix)
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            for part in (path, path.with_suffix(".bin")):
                content = read_regular(part, at_most=MAX_MODEL_BYTES)
                archive.writestr(zipfile.ZipInfo(part.name), content)
        return TimedFile(packed.getvalue(), ".zip")


def write_plan(
    models: Mapping[str, bytes | TimedFile],
    device: DeviceSpec,
    folder: Path,
    config: ProfileConfig,
    *,
    seed: int,
    reference: str | None = None,
) -> Plan:
    """Writes models by id, and `plan.json`, into `folder`. Deterministic.

    models: serialised in the format of the device's runtime, or files; for the batch and precision
        of the device.
    reference: id of the model that tracks the speed of the machine; None: the last one, which is a
        whole network in plans of hwnas.
    """
    plan = plan_data(models, device, config, seed=seed, reference=reference)
    for item, given in zip(plan["items"], models.values(), strict=True):
        model, path = _content(given), folder / item["file"]
        if not holds(path, model):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)  # it can have other hard links
            path.write_bytes(model)  # no fsync (4 ms each): the kit checks every sha256
    write_json(folder / PLAN, plan)
    return plan_in(folder, plan)


def plan_data(
    models: Mapping[str, bytes | TimedFile],
    device: DeviceSpec,
    config: ProfileConfig,
    *,
    seed: int,
    reference: str | None = None,
) -> dict[str, Any]:
    """The content of `plan.json`; see `write_plan`."""
    items = []
    for name, given in models.items():
        suffix = SUFFIXES.get(device.runtime, ".onnx")
        suffix = given.suffix if isinstance(given, TimedFile) else suffix
        digest = hashlib.sha256(_content(given)).hexdigest()
        items.append({"id": name, "file": f"models/{name}{suffix}", "sha256": digest})
    return {
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
        **({"force_threads": True} if config.force_threads else {}),
    }


def plan_in(folder: Path, plan: Mapping[str, Any]) -> Plan:
    """The files of a plan in its folder, whether they exist or not."""
    digest = plan_hash(plan)
    ids = tuple(item["id"] for item in plan["items"])
    return Plan(folder / PLAN, folder / f"results-{digest}.jsonl", digest, ids)


def _content(given: bytes | TimedFile) -> bytes:
    return given.content if isinstance(given, TimedFile) else given


def plan_hash(plan: Mapping[str, Any]) -> str:
    """Hash of a plan as in the kit (export/plan.schema.json), without the stopping rules."""
    kept = {key: value for key, value in plan.items() if key not in STOPPING_RULES}
    text = json.dumps([PROTOCOL, kept], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
