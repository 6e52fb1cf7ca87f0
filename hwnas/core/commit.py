"""Atomic changes of several files in a folder, safe against kills at any time.

All that is to be done is written into one file, `commit.json`. Before it is there, nothing has
changed; from then on the change counts, and `finish` does what is left of it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hwnas.core.confined import inside, require_below
from hwnas.core.records import STRICT, dump, load
from hwnas.core.store import explained, read_json, write_json, write_text

__all__ = ["FILE", "Commit", "commit", "finish", "is_unfinished"]

FILE = "commit.json"


@dataclass(frozen=True)
class Commit:
    """A change of a folder; all paths are relative to it.

    moves: (from, to), done in this order; none of the targets is there before its move. texts:
    contents by path, written after the moves; None removes the file. Folders that become empty are
    removed.
    """

    __pydantic_config__ = STRICT

    moves: tuple[tuple[str, str], ...] = ()
    texts: dict[str, str | None] = field(default_factory=dict)


def commit(root: Path, change: Commit) -> None:
    """Make the change; the caller is alone with the folder.

    Raises:
        UserError: a path leads out of the folder (nothing has changed), or the system refuses (the
            next `finish` goes on).
    """
    if not change.moves and not change.texts:
        return
    for name in _names(change):
        inside(root, name)
    write_json(inside(root, FILE), dump(change), indent=None)
    _apply(root, change)


def is_unfinished(root: Path) -> bool:
    """Whether a process was killed, or is at work, between the first and the last step."""
    return inside(root, FILE).exists()


def finish(root: Path, owned: Sequence[str]) -> None:
    """Do what a killed process left of its change; the caller is alone with the folder.

    owned: patterns of the names that changes may reach, directly in the folder.

    Raises:
        UserError: `commit.json` is none, reaches other names, or the system refuses.
    """
    if not is_unfinished(root):
        return
    path = inside(root, FILE)
    change = load(Commit, read_json(path), where=path)
    for name in _names(change):
        require_below(owned, name, "a change of the folder reaches files of others", where=path)
    _apply(root, change)


def _names(change: Commit) -> list[str]:
    return [name for move in change.moves for name in move] + list(change.texts)


def _apply(root: Path, change: Commit) -> None:
    """Every step may have been done already: a target that is there was moved."""
    paths = {name: inside(root, name) for name in _names(change)}
    with explained("change the run folder", root):
        for source, target in change.moves:
            if paths[source].exists() and not paths[target].exists():
                paths[target].parent.mkdir(parents=True, exist_ok=True)
                paths[source].replace(paths[target])
        for name, text in change.texts.items():
            if text is None:
                paths[name].unlink(missing_ok=True)
            else:
                write_text(paths[name], text)
        left = [source for source, _ in change.moves]
        for name in [*left, *(name for name, text in change.texts.items() if text is None)]:
            _remove_empty_folders(root, paths[name])
        inside(root, FILE).unlink(missing_ok=True)


def _remove_empty_folders(root: Path, path: Path) -> None:
    """Remove the folders around a path that is gone, as far as they are empty."""
    with contextlib.suppress(OSError):  # not empty
        for folder in path.parents:
            if folder == root:
                return
            if folder.exists():
                folder.rmdir()
