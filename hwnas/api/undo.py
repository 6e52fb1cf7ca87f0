"""`hwnas undo`: reverts the last change of a run folder's settings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hwnas.api.result import Folder, Listing
from hwnas.core import history
from hwnas.core.rundir import RunDir
from hwnas.core.store import explained
from hwnas.core.yaml_data import read_yaml
from hwnas.pipeline.stored import config_data, stored_config

__all__ = ["undo"]


def undo(folder: Folder) -> Listing:
    """Restores settings and stages before the last change; returns the changed settings.

    Nothing is recomputed: files of finished and unfinished stages are moved back, and files of the
    undone settings are set aside. Another call undoes the change before that. There is no redo:
    give the settings again, and their stages are found again.

    Raises:
        UserError: not a run folder, another process uses it, or there is no change to undo.
    """
    run = RunDir(Path(folder))
    with explained("look into the run folder", run.root):
        run.check()
    config_data(run, None, None)  # checks that this is a run folder
    with run.locked("hwnas undo"):
        history.settle(run)
        undone = dict(_settings(read_yaml(stored_config(run))))
        entry = history.undo(run)
        now = dict(_settings(read_yaml(stored_config(run))))
    rows = [
        {"setting": key, "undone": undone.get(key), "restored": now.get(key)}
        for key in undone | now
        if undone.get(key) != now.get(key)
    ]
    facts = {"run": str(run.root), "command": entry.command, "at": entry.at}
    return Listing(rows, title=f"{run.root}: undone: {entry.command} of {entry.at}", facts=facts)


def _settings(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every setting by key path; items of lists by number."""
    items = enumerate(value) if isinstance(value, list) else getattr(value, "items", lambda: ())()
    found = [pair for key, item in items for pair in _settings(item, f"{path}.{key}".strip("."))]
    yield from found or [(path, value)]
