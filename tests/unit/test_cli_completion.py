"""The Tab key completes names of configurations and devices, and paths of files."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from hwnas.cli.main import app


def completed(words: str) -> list[str]:
    asked = {
        "_HWNAS_COMPLETE": "complete_bash",
        "COMP_WORDS": f"hwnas {words}",
        "COMP_CWORD": str(len(words.split())),
    }
    done = CliRunner().invoke(app, [], prog_name="hwnas", env=asked)
    return done.output.split()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("run quick", ["quickstart"]),
        ("run mi", ["mine.yaml", "mine/"]),
        ("run ./mi", ["./mine.yaml", "./mine/"]),
        ("run mine/o", ["mine/own.yml"]),
        ("run ~/mine/o", ["~/mine/own.yml"]),
        ("search RUN --config quick", ["quickstart"]),
        ("config show quick", ["quickstart"]),
        ("profile device local_lite", ["local_litert", "local_litert_int8"]),
    ],
)
def test_names_and_paths_are_completed(
    words: str, expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine").mkdir()
    for name in ("mine.yaml", "mine.txt", "mine/own.yml", "mine/other.json"):
        (tmp_path / name).touch()
    assert completed(words) == expected
