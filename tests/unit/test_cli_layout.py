"""Tables are readable in a terminal of any width: whole words, every value, no line too long."""

from __future__ import annotations

import io
import os
import pty
import re
import sys

import pytest
from rich.cells import cell_len
from rich.console import Console

from hwnas.cli.layout import WHOLE_WORD, tables
from hwnas.cli.output import Format, emit, progress_for

NAMES = ("winner", "largest", "smallest", "random search", "random subnet")
ROWS = [
    {
        "name": name,
        "test_top1": "94.44% ± 5.40%",
        "macs": 5_878_112,
        "measured_ms": 0.06173,
        "forecast_error": -0.0026,
        "constraint_met": name != "largest",
        "device": "local",
        "file": "model.int8.onnx",
        "fp32_top1": None,
    }
    for name in NAMES
]
TEXT = {key: [str(row[key]) for row in ROWS] for key in ROWS[0]}


def shown(rows, text, width: int) -> str:
    stream = io.StringIO()
    for table in tables(rows, text, width=width):
        Console(file=stream, width=width, markup=False).print(table)
    return stream.getvalue()


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 160, 300])
def test_words_and_numbers_stay_whole_and_no_line_is_too_long(width: int) -> None:
    found = shown(ROWS, TEXT, width)
    assert all(cell_len(line) <= width for line in found.splitlines())
    words = re.split(r"[\s│┃]+", found)
    for key, cells in TEXT.items():
        if key == "fp32_top1":
            continue
        assert key in words, "headings are not broken"
        for word in (word for cell in cells for word in cell.split()):
            assert word in words, (width, word)


def test_a_column_without_any_value_is_left_out_only_where_space_is_short() -> None:
    assert "fp32_top1" in shown(ROWS, TEXT, 300)
    assert "fp32_top1" not in shown(ROWS, TEXT, 112)
    assert shown(ROWS, TEXT, 112).count("┏") == 1, "one table is enough"


def test_rows_that_do_not_fit_beside_each_other_go_below_each_other() -> None:
    found = shown(ROWS, TEXT, 60)
    heads = re.findall(r"┃ name +┃(.*)┃", found)
    assert len(heads) > 1, "several tables, each with the names of the values"
    assert found.count("│ macs ") == len(heads)


@pytest.mark.parametrize("length", [WHOLE_WORD, WHOLE_WORD + 1, 500])
def test_only_long_words_are_broken(length: int) -> None:
    rows = [{"what": "models", "where": "x" * length, "mb": 5.743}]
    text = {key: [str(value)] for key, value in rows[0].items()}
    found = shown(rows, text, 60)
    assert found.count("x") == length and "5.743" in found and "models" in found
    assert ("x" * length in found) == (length < 40)
    assert all(cell_len(line) <= 60 for line in found.splitlines())


def test_wide_characters_count_twice() -> None:
    rows = [{"class": "猫猫猫猫猫猫", "n": 3}]
    found = shown(rows, {"class": ["猫猫猫猫猫猫"], "n": ["3"]}, 24)
    assert "猫猫猫猫猫猫" in found and all(cell_len(line) <= 24 for line in found.splitlines())


def test_large_whole_numbers_of_arrays_are_shown_as_counts(capsys) -> None:
    emit([{"macs": 5878112.0, "score": -0.2231, "ms": 1234.0}], format=Format.table)
    out = capsys.readouterr().out
    assert "5,878,112" in out and "-0.2231" in out and "1234" in out


def test_the_progress_of_a_narrow_terminal_stays_in_one_line(monkeypatch) -> None:
    """A line that wraps could not be rewritten: every update would leave a line behind."""
    main, terminal = pty.openpty()
    import fcntl
    import struct
    import termios

    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
    with os.fdopen(terminal, "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        progress_for("search/main")(3, 200, "policy_gradient, 128 of 256 proposals; " * 4)
        stream.flush()
        text = os.read(main, 10_000).decode()
    os.close(main)
    line = text.replace("\r", "").replace("\x1b[2K", "")
    assert line.startswith("  search/main: 3/200") and cell_len(line) == 59
