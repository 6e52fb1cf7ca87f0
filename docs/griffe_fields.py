"""Sections for the API reference: paragraphs of `name: text` become tables of names.

The docstrings of hwnas describe fields and arguments in a paragraph of their own, without a head.
Without one, the reader of docstrings takes them for running text, or for a box with a title.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

ITEM = re.compile(r"([a-z_]\w*(?:, [a-z_]\w*)*): \S")
"""The first line of an item; its other lines are indented."""


class Fields(griffe.Extension):
    """Gives such paragraphs their head before they are parsed."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Changes the docstring of a function or a class."""
        if obj.docstring is None or not (obj.is_function or obj.is_class):
            return
        head = "Args" if obj.is_function else "Attributes"
        known = {one.name for one in obj.parameters} if obj.is_function else {*obj.all_members}
        obj.docstring.value = with_heads(obj.docstring.value, known, head)


def with_heads(text: str, known: set[str], head: str) -> str:
    """The docstring with `head` above each paragraph that describes only `known` names."""
    paragraphs = re.split(r"\n\n+", text)
    return "\n\n".join(
        f"{head}:\n" + "\n".join(f"    {line}" for line in _items(one))
        if _names(one) and _names(one) <= known
        else one
        for one in paragraphs
    )


def _items(paragraph: str) -> list[str]:
    """The lines of a paragraph; what describes two names at once is written below each.

    Where there is a comma, the reader of docstrings takes the second name for a type.
    """
    lines: list[str] = []
    for item in re.split(r"\n(?! )", paragraph):
        names, text = item.split(": ", 1)
        lines += [line for name in names.split(", ") for line in f"{name}: {text}".split("\n")]
    return lines


def _names(paragraph: str) -> set[str]:
    """The names that a paragraph describes; none if it also has other lines."""
    heads = [line for line in paragraph.split("\n") if not line.startswith(" ")]
    items = [ITEM.match(line) for line in heads]
    found: set[str] = set()
    for item in items:
        if item is None:
            return set()
        found.update(item[1].split(", "))
    return found
