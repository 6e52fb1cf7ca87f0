"""Fixtures shared by the tests of whole commands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hwnas.pipeline import foreign_tables
from tests.old_runs import unpacked_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run folder."""
    return unpacked_run("finished", tmp_path_factory.mktemp("runs"))


@pytest.fixture
def its_machine(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine passes for the one on which the run of `folder` was timed."""
    facts = json.loads((folder / "tables" / "local.json").read_text())["facts"]
    monkeypatch.setattr(foreign_tables, "host_facts", lambda: facts)
