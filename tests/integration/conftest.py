"""Fixtures shared by the tests of whole commands."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from hwnas.pipeline import foreign_tables

RUNS = Path(__file__).resolve().parents[1] / "golden" / "runs" / "finished.tar.xz"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run folder."""
    parent = tmp_path_factory.mktemp("runs")
    with tarfile.open(RUNS) as archive:
        archive.extractall(parent, filter="data")
    return parent / "finished"


@pytest.fixture
def its_machine(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine passes for the one on which the run of `folder` was timed."""
    facts = json.loads((folder / "tables" / "local.json").read_text())["facts"]
    monkeypatch.setattr(foreign_tables, "host_facts", lambda: facts)
