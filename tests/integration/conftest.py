"""Fixtures shared by the tests of whole commands."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

RUNS = Path(__file__).resolve().parents[1] / "golden" / "runs" / "finished.tar.xz"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run folder."""
    parent = tmp_path_factory.mktemp("runs")
    with tarfile.open(RUNS) as archive:
        archive.extractall(parent, filter="data")
    return parent / "finished"
