"""Tables in the terminal show their cells as they are."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from hwnas.cli.main import app
from hwnas.cli.output import Format, emit

CELLS = ("pip install 'hwnas[ncnn]'", "[bold]", "[/]", "[link=x]", ":smile:", r"\[a]", "a[0]")


@pytest.mark.parametrize("cell", CELLS)
def test_no_cell_column_or_title_is_read_as_markup(cell: str, capsys: pytest.CaptureFixture[str]):
    emit([{"name": cell, cell: 1}], format=Format.table, title=cell)
    assert capsys.readouterr().out.count(cell) == 3


def test_the_whole_install_line_is_listed():
    from hwnas.exporters import REGISTRY

    lines = [
        install for install in (REGISTRY.describe(n).install for n in REGISTRY.names) if install
    ]
    if not lines:
        pytest.skip("every exporter is installed here")
    shown = CliRunner().invoke(app, ["list", "exporters"]).stdout
    assert all("[" in line and line in shown for line in lines)
    rows = json.loads(CliRunner().invoke(app, ["list", "exporters", "--format", "json"]).stdout)
    assert {row["available"] for row in rows["table"]} == {*lines, "yes"}
