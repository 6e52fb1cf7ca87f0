"""Settings whose defaults changed: a run folder keeps the default that it was made with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hwnas.core.rundir import RunDir
from hwnas.core.yaml_data import read_yaml
from hwnas.pipeline.stored import stored_config

__all__ = ["with_kept_defaults"]

CHANGED = {
    ("gcn", "predictor.training.loss"): "both",  # until 0.1
    ("distilled", "predictor.teacher.training.loss"): "both",
}
"""Defaults of earlier versions, by the predictor's name and the key of the setting."""


def with_kept_defaults(
    run: RunDir, data: Mapping[str, Any], changes: Mapping[str, Any]
) -> Mapping[str, Any]:
    """The changes, with the earlier defaults of the stored configuration that nothing else sets.

    So a finished run stays finished if its configuration is given again by name.

    data: the given configuration, as plain data.
    changes: values that the command sets, by key. An invalid section is returned as it is.
    """
    path = stored_config(run)
    stored = read_yaml(path) if path.exists() else {}
    given = changes.get("predictor", data.get("predictor"))
    if not isinstance(given, str | Mapping | None):
        return changes
    section = {"name": given} if isinstance(given, str) else {"name": "gcn", **(given or {})}
    name = changes.get("predictor.name", section["name"])
    kept = {
        key: default
        for (predictor, key), default in CHANGED.items()
        if name == predictor == _at(stored, "predictor.name")
        and _at(stored, key) == default
        and _at({"predictor": section}, key) is None
        and key not in changes
    }
    if not kept:
        return changes
    return {"predictor": section} | kept | {k: v for k, v in changes.items() if k != "predictor"}


def _at(data: Any, key: str) -> Any:
    """The value of a key with dots; None if it is missing."""
    for part in key.split("."):
        data = data.get(part) if isinstance(data, Mapping) else None
    return data
