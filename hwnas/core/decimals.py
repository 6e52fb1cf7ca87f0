"""Numbers as text: decimal commas, and rounding of numbers that may be unknown."""

from __future__ import annotations

import re

__all__ = ["rounded", "with_point"]


def rounded(value: float | None, digits: int) -> float | None:
    """The rounded number; None stays None."""
    return None if value is None else round(value, digits)


def with_point(text: str) -> str | None:
    """Converts `0,5` to `0.5`; None if the text is not a number with a decimal comma."""
    is_one = re.fullmatch(r"\s*[-+]?[0-9]*,[0-9]+(?:[eE][-+]?[0-9]+)?\s*", text)
    return text.strip().replace(",", ".") if is_one else None
