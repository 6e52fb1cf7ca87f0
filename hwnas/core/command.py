"""Command lines that hwnas prints for the user to run."""

from __future__ import annotations

import shlex
from pathlib import PurePath

__all__ = ["command_line"]


def command_line(*words: str | PurePath) -> str:
    """The command line that runs hwnas with these words in the user's working directory.

    Paths stay as the user gave them: relative paths are relative to the working directory. Words
    are quoted for the shell, and a path is never parsed as an option.
    """
    return shlex.join(["hwnas", *map(_word, words)])


def _word(word: str | PurePath) -> str:
    text = str(word)
    return f"./{text}" if isinstance(word, PurePath) and text.startswith("-") else text
