"""Formats whose files can run code, and the record of the files that hwnas itself wrote.

Opening an exported program of torch or a TensorRT engine can run code. No check of the bytes can
exclude this, and a record in the same folder could be forged. So exporters store the sha256 of the
files that they write in the user's cache ($HWNAS_CACHE, default ~/.cache/hwnas), outside of any
received folder. Recorded files are opened without a confirmation; other files only if the user
requests it.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

from hwnas.core.env import cache_folder
from hwnas.core.errors import UserError
from hwnas.exporters.opened import CannotRunHere

__all__ = ["remember", "require_own"]

log = logging.getLogger(__name__)


def remember(content: bytes) -> None:
    """Records that this hwnas wrote a file with this content; logs a warning if that fails."""
    try:
        note = _note(content)
        note.parent.mkdir(parents=True, exist_ok=True)
        note.touch()
    except (OSError, UserError) as error:
        log.warning(
            "cannot record exported files, so hwnas will not open them: %s; fix: set HWNAS_CACHE to"
            " a folder that can be written",
            error,
        )


def require_own(content: bytes, path: Path) -> None:
    """Checks that this user's hwnas wrote the content of `path`.

    Raises:
        CannotRunHere: the content is not recorded.
    """
    try:
        is_own = _note(content).exists()
    except UserError:  # without a home folder there is no record
        is_own = False
    if not is_own:
        raise CannotRunHere(
            "the file can contain code, and this hwnas did not write it (--trust runs it)",
            where=path,
            fix="if you trust its source: `hwnas verify BUNDLE --trust`",
        )


def _note(content: bytes) -> Path:
    return cache_folder() / "exported" / hashlib.sha256(content).hexdigest()
