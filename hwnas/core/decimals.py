"""Parses numbers with a decimal comma."""

from __future__ import annotations

import re

__all__ = ["with_point"]


def with_point(text: str) -> str | None:
    """Converts `0,5` to `0.5`; None if the text is not a number with a decimal comma."""
    is_one = re.fullmatch(r"\s*[-+]?[0-9]*,[0-9]+(?:[eE][-+]?[0-9]+)?\s*", text)
    return text.strip().replace(",", ".") if is_one else None
