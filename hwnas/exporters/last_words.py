"""The end of the output of a process that crashed."""

from __future__ import annotations

import re

__all__ = ["last_words"]

TAIL = 300  # characters
WARNING = re.compile(r"\S.*:\d+: \w*Warning: ")


def last_words(said: str) -> str:
    """The last lines of an output, up to `TAIL` characters, without warnings of Python."""
    kept: list[str] = []
    after_warning = False
    for line in filter(str.strip, said.splitlines()):
        is_warning = WARNING.match(line) is not None
        is_source = after_warning and line.startswith("  ")  # the line of code that warned
        if not is_warning and not is_source:
            kept.append(line.rstrip())
        after_warning = is_warning
    lines: list[str] = []
    for line in reversed(kept):
        if lines and len("\n".join([line, *lines])) > TAIL:
            break
        lines.insert(0, line)
    return "\n".join(lines)[-TAIL:].strip()
