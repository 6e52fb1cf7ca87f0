"""Command lines that hwnas prints for the user to run."""

from __future__ import annotations

import shlex
from pathlib import PurePath

__all__ = ["command_line"]


def command_line(*words: str | PurePath) -> str:
    """The line that runs hwnas with these words, for a shell in the user's working directory.

    The one rule: a path stays as the user gave it, so that a relative one counts from where the
    user is, and an absolute one works from every folder. What a shell would split or expand is
    quoted, and a path is never taken for an option.
    """
    return shlex.join(["hwnas", *map(_word, words)])


def _word(word: str | PurePath) -> str:
    text = str(word)
    return f"./{text}" if isinstance(word, PurePath) and text.startswith("-") else text
