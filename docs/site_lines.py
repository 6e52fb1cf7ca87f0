"""A hook of mkdocs that decides where the lines of a page may end: between words that belong apart.

A browser ends a line at any space and after any hyphen, so also between a number and its unit, and
inside `--set`. Names of settings and paths, on the other hand, need places where they may end.
"""

from __future__ import annotations

import re
from typing import Any

from mkdocs.structure.files import Files

VERBATIM = re.compile(r"(<(pre|code|svg|script|style)\b.*?</\2>|<[^>]*>)", re.DOTALL)
"""What is no running text in the HTML of a page: code, drawings, and the inside of tags."""
TAG = re.compile(r"(<[^>]*>)")
SPACE = re.compile(
    r"(?<=\d) (?=(?:%|ms|px|MB|s)(?!\w))"  # a number and its unit
    r"|(?<=\d,) (?=[\d.]+\s%)"  # two numbers and their unit
    r"|(?<=\d,) (?=-?[\d.]+\])"  # the ends of an interval
    r"|(?<=±) (?=\d)"  # a standard error
    r"|(?<=\bx) (?=\d)"  # a factor
)
"""A space at which a line does not end."""
HYPHEN = re.compile(r"\btop-\d\b|\d[\d.]* \+- [\d.]+")
"""Words with a hyphen at which a line does not end."""
OPTION = re.compile(r"(?<![\w<-])--?[a-zA-Z][\w-]*")
"""An option of a command."""
COMMANDS = re.compile(
    r'(?<=<div class="language-)(?:bash|console|text)\b.*?</pre>',
    re.DOTALL,
)
"""Blocks whose lines are wrapped on narrow screens."""
WORD = re.compile(rf"(?<!\S)# \S+|{OPTION.pattern}")
"""What stays in one line there: options, and the start of a comment."""
BREAK = re.compile(r"(?<=\w)[/:](?=[\w*])")
"""Where a path, or a format with its precision, may continue on the next line."""
CELL = re.compile(r"<td\b.*?</td>", re.DOTALL)
CODE = re.compile(r"(?<=<code>)[^<>\s]{1,16}(?=</code>)")
"""Code of one short word: in the narrow column of a table, a browser would end a line inside."""
COMMAND = re.compile(r"(?<=<code>)(?:(?!<wbr>|</code>).)*\s(?:(?!<wbr>|</code>).)*(?=</code>)")
"""Code of several words in a table, which may end a line between the words."""
PART = re.compile(r"(?<!\S)[^\s<>-][^\s<>]{1,13}(?!\S)")
"""A word of such code that is short enough to stay in one line."""
FILE = re.compile(r"(?:(?<=<code>)|(?<=<wbr>))[\w.*]{17,}(?=<)")
"""The name of a file in a table, or a part of its path, that is longer than a narrow column."""
HEAD = re.compile(r"(?<=>)\w+_\w+(?=</th>)")
"""The name of a column, which is longer than the numbers below it."""
JOINT = re.compile(r"(?<=\w)(?=\.[A-Za-z])|(?<=[a-z0-9]_)(?=[a-z0-9])")
"""A place where the name of a setting may continue on the next line."""


def on_page_content(content: str, *, page: Any, config: Any, files: Files) -> str:
    """Lines end between words, not before units or inside options, and names at their joints."""
    has_keys = page.file.src_uri == "configuration.md"
    parts = VERBATIM.split(COMMANDS.sub(_block, content))
    for n in range(0, len(parts), 3):
        parts[n] = HYPHEN.sub(_whole, SPACE.sub("\N{NO-BREAK SPACE}", parts[n]))
    for n in range(1, len(parts), 3):
        if re.fullmatch("<code>[^<]*</code>", parts[n]):
            words = parts[n][len("<code>") : -len("</code>")]
            words = BREAK.sub(r"\g<0><wbr>", JOINT.sub("<wbr>", words) if has_keys else words)
            parts[n] = f"<code>{OPTION.sub(_whole, words)}</code>"
        parts[n + 1] = ""  # the name of the tag, which `split` returns
    text = "".join(parts)
    text = HEAD.sub(lambda name: JOINT.sub("<wbr>", name[0]), text)
    return text if has_keys else CELL.sub(_cell, text)


def _cell(match: re.Match[str]) -> str:
    """A cell of a table in which no short word of code is broken, and long names at a dot."""
    words = FILE.sub(lambda name: JOINT.sub("<wbr>", name[0]), match[0])
    return CODE.sub(_whole, COMMAND.sub(_command, words))


def _command(match: re.Match[str]) -> str:
    """Code whose short words stay whole."""
    parts = TAG.split(match[0])
    parts[::2] = [PART.sub(_whole, words) for words in parts[::2]]
    return "".join(parts)


def _block(match: re.Match[str]) -> str:
    """A block of commands whose options stay whole."""
    parts = TAG.split(match[0])
    parts[::2] = [WORD.sub(_whole, words) for words in parts[::2]]
    return "".join(parts)


def _whole(match: re.Match[str]) -> str:
    """What was found, in one line."""
    return f'<span class="whole">{match[0]}</span>'
