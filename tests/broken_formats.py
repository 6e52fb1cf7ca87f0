"""Formats of an installed package that fail in the ways in which converters and runtimes fail."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hwnas.exporters import REGISTRY

MODULE = '''"""{name}"""
import logging
import os
from typing import Literal

from hwnas.core.errors import UserError
from hwnas.exporters.base import Format, FormatConfig
from hwnas.interfaces import ModelFile, OpenModel


class Config(FormatConfig):
    name: Literal["{name}"] = "{name}"


def build(config):
    return _Format()


class _Format(Format):
    def contents(self, source):
        {contents}

    def describe(self, files):
        return ModelFile("{name}", "{name}", "fp32")

    def open_model(self, path, *, threads=1):
        {opened}
'''
WRITTEN = 'return {{"{name}": b"x"}}'
ABORT = "os.write(2, b'no such instruction'); os.abort()"
FORMATS = {
    "crashing": (WRITTEN, ABORT),
    "unsayable": ('raise UserError("no such operator", found="HardSwish")', "pass"),
    "falling": (ABORT, "pass"),
    "talking": (
        "logging.getLogger('hwnas.talking').warning('one layer stays in float: %s', "
        "sorted(source.metadata)); return {{'talking': b'x'}}",
        "return OpenModel(lambda x: x[:, :2, 0, 0], 'talking 1')",
    ),
    "hanging": ("__import__('subprocess').run(['sleep', '600'])", "pass"),
    "waiting": (WRITTEN, "__import__('time').sleep(600)"),
    "sudden": (WRITTEN, f"return OpenModel(lambda x: {ABORT.replace('; ', ' and ')}, 'sudden 1')"),
}
"""By name: what its converter does, and what its runtime does with the file.

`falling` crashes when it converts, `crashing` when it opens a file, `sudden` when it runs one.
`hanging` does not end when it converts, because a program that it calls does not end; `waiting`
when it opens a file.
"""


@contextmanager
def installed(site: Path) -> Iterator[None]:
    """The package lies in the empty folder `site` and is installed."""
    about = site / "broken-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    lines = [f"{name} = broken_{name}" for name in FORMATS]
    (about / "entry_points.txt").write_text("\n".join(["[hwnas.exporters]", *lines]))
    for name, (contents, opened) in FORMATS.items():
        text = MODULE.format(name=name, contents=contents.format(name=name), opened=opened)
        (site / f"broken_{name}.py").write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(site))
        _forget()
        yield
    _forget()


def _forget() -> None:
    """The registry looks for installed packages again."""
    for name in ("_places", "_outside"):
        REGISTRY.__dict__.pop(name, None)
