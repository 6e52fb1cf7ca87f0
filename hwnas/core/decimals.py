"""Parses numbers with a decimal comma."""

from __future__ import annotations

import re

__all__ = ["with_point"]


def with_point(text: str) -> str | None:
    """`0,5` as `0.5`; None: the text is no such number."""
    is_one = re.fullmatch(r"\s*[-+]?[0-9]*,[0-9]+\s*", text)
    return text.strip().replace(",", ".") if is_one else None
