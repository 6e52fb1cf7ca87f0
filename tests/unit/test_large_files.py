"""Small files that would take gigabytes of memory as values are refused, with the limit named."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from hwnas.core import csv_data, json_data, store
from hwnas.core.csv_data import read_csv
from hwnas.core.errors import UserError
from hwnas.core.json_data import strict_json
from hwnas.core.rundir import RunDir
from hwnas.core.store import append_jsonl, iter_jsonl
from hwnas.core.thinned import Thinned
from hwnas.pipeline.listings import check_training_rows, training_rows


def curve(run: RunDir, steps: range, **more: object) -> None:
    for step in steps:
        row = {"step": step, "lr": 0.1, "losses": [1.0], "top1": {"a": 0.5}, "val_loss": {"a": 1.0}}
        run.metric("train", row | more)


def test_a_curve_is_read_line_by_line(tmp_path: Path) -> None:
    """All rows were in memory at once."""
    run = RunDir(tmp_path)
    for step in range(200):
        run.metric("train", {"step": step, "text": "x" * 10_000})
    tracemalloc.start()
    rows = run.metrics("train", at_most=20)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < run.metrics_file.stat().st_size / 4
    steps = [row["step"] for row in rows]
    assert 10 <= len(steps) <= 20 and steps[-1] == 199 and steps == sorted(steps)
    gaps = np.diff(steps)
    assert gaps.max() <= 2 * gaps[:-1].min()


def test_every_row_of_a_thinned_curve_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunDir(tmp_path)
    curve(run, range(0, 30))
    text = run.metrics_file.read_text()
    whole = run.metrics("train")
    monkeypatch.setattr(RunDir.metrics, "__kwdefaults__", {"at_most": 4})
    assert whole[-1]["step"] == training_rows(run)[-1].step == 29
    assert len(training_rows(run)) <= 4
    check_training_rows(run)
    for step in range(30):
        old = f'"step": {step}, "lr": 0.1'
        assert text.count(old) == 1
        run.metrics_file.write_text(text.replace(old, f'"step": {step}, "lr": "x"'))
        with pytest.raises(UserError, match="not a valid training row"):
            check_training_rows(run)


@pytest.mark.parametrize(
    "numbers",
    [
        range(1000),
        range(1000, 0, -1),
        range(2**63 - 1000, 2**63),
        [-1e308, *range(20), 1e308],
        [1e-320 * n for n in range(100)],
    ],
)
def test_what_is_thinned_is_bounded_and_has_the_last(numbers: list[float]) -> None:
    kept = Thinned[str](10)
    for number in numbers:
        kept.add(number, str(number))
    found = kept.items()
    assert len(found) <= 10 and found[-1][0] == max(numbers) and kept.least == min(numbers)
    assert all(row == str(number) for number, row in found)


def test_short_curves_are_kept_whole_and_repeats_count_once() -> None:
    kept = Thinned[str](3)
    for number, row in ((2, "a"), (1, "b"), (3, "c"), (2, "d")):
        kept.add(number, row)
    assert kept.items() == [(1, "b"), (2, "d"), (3, "c")]


def test_json_of_millions_of_values_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quarter of a gigabyte of `[]` took twelve gigabytes."""
    assert json_data.MAX_VALUES == 4_000_000
    monkeypatch.setattr(json_data, "MAX_VALUES", 100)
    for item in ("[]", "{}", "1", '{"a":{}}'):
        text = "[" + ",".join([item] * 101) + "]"
        with pytest.raises(ValueError, match="at most 100"):
            strict_json(text)
    assert len(strict_json("[" + ",".join(["1234"] * 99) + "]")) == 99


def test_a_line_of_gigabytes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert store.MAX_LINE_BYTES == 1 << 26
    monkeypatch.setattr(store, "MAX_LINE_BYTES", 100)
    path = tmp_path / "a.jsonl"
    append_jsonl(path, {"a": "x" * 80})
    assert len(list(iter_jsonl(path))) == 1
    for end in ("", "\n"):
        path.write_text('{"a": "' + "x" * 200 + end)
        with pytest.raises(UserError, match=r"a line is too long(.|\n)*a\.jsonl:1"):
            list(iter_jsonl(path))


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("ms,arch\n" + "1\n" * 30, "20 rows"),
        ("ms" + "," * 300 + "\n1", "200 cells"),
        ("\n\nms" + "," * 50 + "\n1", "10 columns"),
        ("sep=1\nms1arch\n" + "1" * 300, "200 cells"),
        ("ms;arch\n" + ";" * 300, "200 cells"),
    ],
)
def test_tables_of_millions_of_cells_are_refused(
    text: str, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, most in (("MAX_ROWS", 20), ("MAX_CELLS", 200), ("MAX_COLUMNS", 10)):
        monkeypatch.setattr(csv_data, name, most)
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=f"too large(.|\n)*at most {what}"):
        read_csv(path, ("ms", "arch"))
    path.write_text("ms,arch\n1,2\n3,4\n")
    assert len(read_csv(path, ("ms", "arch")).rows) == 2
