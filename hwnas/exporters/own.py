"""Formats whose files can run code, and the record of the files that hwnas itself wrote.

torch's exported programs and TensorRT's engines cannot be opened without trusting their maker: no
filter of the bytes suffices, and a ledger beside them may be a stranger's, too. So the exporters
note the sha256 of what they write in the user's cache ($HWNAS_CACHE, default ~/.cache/hwnas), which
no foreign folder reaches. Such a file is opened without being asked; any other on request alone.
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
    """Note that this hwnas made a file of this content; where that fails, a warning says so."""
    try:
        note = _note(content)
        note.parent.mkdir(parents=True, exist_ok=True)
        note.touch()
    except (OSError, UserError) as error:
        log.warning(
            "cannot note what was exported, so it will not be run: %s; fix: set HWNAS_CACHE", error
        )


def require_own(content: bytes, path: Path) -> None:
    """Nothing if this user's hwnas made the content of `path`.

    Raises:
        CannotRunHere: somebody else may have.
    """
    try:
        is_own = _note(content).exists()
    except UserError:  # without a home folder nothing is remembered
        is_own = False
    if not is_own:
        raise CannotRunHere(
            "it can hold code, and this hwnas did not write it (--trust runs it)",
            where=path,
            fix="if you trust whoever made it: `hwnas verify BUNDLE --trust`",
        )


def _note(content: bytes) -> Path:
    return cache_folder() / "exported" / hashlib.sha256(content).hexdigest()
