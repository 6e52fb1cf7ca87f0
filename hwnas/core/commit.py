"""Atomic changes of several files in a folder, safe against kills at any time.

The whole change is first written to one file, `commit.json`. Without this file, nothing has
changed. With it, the change is valid, and `finish` completes the remaining steps.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hwnas.core.confined import inside, require_below
from hwnas.core.errors import UserError
from hwnas.core.records import STRICT, RecordFile
from hwnas.core.store import explained, write_text

__all__ = ["FILE", "Commit", "commit", "commit_file", "finish", "is_unfinished"]

FILE = "commit.json"
OF_OTHERS = "an unfinished change of the run folder would touch files that do not belong to hwnas"


@dataclass(frozen=True)
class Commit:
    """A change of a folder. All paths are relative to the folder.

    copies: (from, to), made before the moves; a target must not exist before.
    moves: (from, to), applied in this order; a target must not exist before its move.
    texts: contents by path, written after the moves; None removes the file. Folders that become
        empty are removed.
    """

    __pydantic_config__ = STRICT

    moves: tuple[tuple[str, str], ...] = ()
    texts: dict[str, str | None] = field(default_factory=dict)
    copies: tuple[tuple[str, str], ...] = ()


def commit(root: Path, change: Commit) -> None:
    """Applies the change. The caller must hold the lock of the folder.

    Raises:
        UserError: a path leads out of the folder (then nothing has changed), or a system call fails
            (then the next `finish` completes the change).
    """
    if change == Commit():
        return
    for name in _names(change):
        inside(root, name)
    commit_file(root).write(change)
    _apply(root, change)


def commit_file(root: Path) -> RecordFile[Commit]:
    """The file that describes a change until it is completed; it stores a hash of its content."""
    return RecordFile(inside(root, FILE), Commit, is_sealed=True)


def is_unfinished(root: Path) -> bool:
    """Whether a commit was started but not completed; its process may still be running."""
    return inside(root, FILE).exists()


def finish(root: Path, owned: Sequence[str]) -> None:
    """Completes the change of a killed process. The caller must hold the lock of the folder.

    owned: name patterns; the change may only touch entries of the folder that match one of them.

    Raises:
        UserError: `commit.json` is invalid or touches other entries, or a system call fails.
    """
    if not is_unfinished(root):
        return
    path, change = inside(root, FILE), commit_file(root).read()
    for name in _names(change):
        try:
            require_below(owned, name, OF_OTHERS, where=path)
        except UserError as error:
            error.add_way_out(
                "if a newer hwnas wrote this file, use that version; otherwise remove this file:"
                " then the change stays unfinished, and `hwnas check` lists files that it left"
                " damaged or missing"
            )
            raise
    _apply(root, change)


def _names(change: Commit) -> list[str]:
    pairs = (*change.copies, *change.moves)
    return [name for pair in pairs for name in pair] + list(change.texts)


def _apply(root: Path, change: Commit) -> None:
    """Applies every step that is not done; a copy or a move is done if its target exists."""
    paths = {name: inside(root, name) for name in _names(change)}
    with explained("change the run folder", root):
        for source, target in change.copies:
            if paths[source].exists() and not paths[target].exists():
                _copy(paths[source], paths[target])
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


def _copy(source: Path, target: Path) -> None:
    """Copies a folder or a file; `target` exists only if it is complete."""
    building = target.with_name(f".{target.name}.copying")
    shutil.rmtree(building, ignore_errors=True)  # left by a killed process
    building.mkdir(parents=True)
    copied = building / target.name
    if source.is_dir():
        shutil.copytree(source, copied, symlinks=True)
    else:
        shutil.copy2(source, copied, follow_symlinks=False)
    copied.replace(target)
    building.rmdir()


def _remove_empty_folders(root: Path, path: Path) -> None:
    """Removes the parent folders of a removed path that are now empty."""
    with contextlib.suppress(OSError):  # not empty
        for folder in path.parents:
            if folder == root:
                return
            if folder.exists():
                folder.rmdir()
