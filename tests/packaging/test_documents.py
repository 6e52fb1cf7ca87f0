"""Commands in the documents run, links lead somewhere, and numbers name their command."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def smoke_blocks() -> list[tuple[str, str]]:
    """(document, text) of every fenced block tagged `smoke`."""
    pattern = re.compile(r"^```(?:bash|sh) smoke\n(.*?)^```", re.MULTILINE | re.DOTALL)
    return [(path.name, block) for path in DOCUMENTS for block in pattern.findall(path.read_text())]


def test_the_readme_has_smoke_blocks():
    assert any(name == "README.md" for name, _ in smoke_blocks())


@pytest.mark.parametrize(("name", "block"), smoke_blocks())
def test_a_smoke_block_runs(name: str, block: str, tmp_path: Path):
    bin_folder = Path(sys.executable).parent
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", f"PATH={bin_folder}:$PATH\n{block}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{name}:\n{block}\n{done.stderr}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_relative_links_lead_to_files(path: Path):
    for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", path.read_text()):
        assert (path.parent / target).exists(), target
