"""Compares run folders file by file, without clocks and repeated rows of the curves."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

CLOCKS = {"seconds", "date"}
CHECK = "check"  # a hash of the record that it is in, so of its clocks, too
LOCK = ".lock"  # who worked last: process, user and machine
CURVES = "metrics.jsonl"  # a step repeated after a resume counts once (`RunDir.metrics`)
REPORT = re.compile(r"<dt>time</dt><dd>[^<]*</dd>")


def differences(one: Path, other: Path) -> set[str]:
    """Files that only one of two run folders has, or that differ in more than clocks."""
    first, second = _contents(one), _contents(other)
    return {name for name in first.keys() | second.keys() if first.get(name) != second.get(name)}


def _contents(run: Path) -> dict[str, object]:
    files = {
        path.relative_to(run).as_posix(): path
        for path in run.rglob("*")
        if path.is_file() and path.name != LOCK
    }
    return {name: _content(path) for name, path in files.items()}


def _content(path: Path) -> object:
    if path.name == "stages.json":
        return _ledger(json.loads(path.read_bytes()), path.parent)
    if path.suffix == ".json":
        return _without_clocks(json.loads(path.read_bytes()))
    if path.name == "report.html":
        return re.sub(REPORT, "", path.read_text())
    if path.name == CURVES:
        return list(dict.fromkeys(path.read_bytes().splitlines()))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _ledger(ledger: dict[str, Any], run: Path) -> object:
    """The ledger without the hashes of files that contain clocks, and of the curves."""
    for record in ledger["stages"].values():
        record.get("grown", {}).pop(CURVES, None)
        for kind in ("outputs", "kept"):
            named = record.get(kind, {})
            record[kind] = {
                name: None if _has_clocks(run / name) else digest for name, digest in named.items()
            }
    return _without_clocks(ledger)


def _has_clocks(path: Path) -> bool:
    if path.suffix != ".json":
        return path.name == "report.html"
    value = json.loads(path.read_bytes())
    return _without_clocks(value) != value


def _without_clocks(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_clocks(one) for one in value]
    if not isinstance(value, dict):
        return value
    left = {key: _without_clocks(one) for key, one in value.items() if key not in CLOCKS}
    if left != value:
        left.pop(CHECK, None)
    return left
