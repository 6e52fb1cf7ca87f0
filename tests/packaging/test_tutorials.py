"""The tutorials run from top to bottom, as a reader would: shell and Python in one folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.old_runs import unpacked_run

ROOT = Path(__file__).resolve().parents[2]
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
AT_MOST_S = 600  # of processor time, as the pages promise
BLOCK = re.compile(r"^```(bash|python) run\n(.*?)^```", re.MULTILINE | re.DOTALL)


def steps(page: Path) -> list[tuple[str, str]]:
    """(language, code) of every block."""
    return BLOCK.findall(page.read_text())


def script(page: Path) -> str:
    """One program: blocks of Python share their names, blocks of shell run in between."""
    lines = ["import os, subprocess, sys", "os.environ['PATH'] = sys.argv[1]"]
    for language, code in steps(page):
        if language == "python":
            lines.append(code)
        else:
            lines.append(
                "sys.stdout.flush()\n"
                f"subprocess.run(['bash', '-euo', 'pipefail', '-c', {code!r}], check=True)"
            )
    return "\n".join(lines)


def test_every_tutorial_is_listed_and_has_blocks() -> None:
    index = (ROOT / "docs" / "tutorials" / "index.md").read_text()
    site = (ROOT / "mkdocs.yml").read_text()
    assert len(TUTORIALS) == 8
    for page in TUTORIALS:
        assert f"tutorials/{page.name}" in site
        if page.stem != "index":
            assert f"({page.name})" in index and len(steps(page)) >= 3, page
            fences = re.findall(r"^```(\S+ ?\S*)$", page.read_text(), re.M)
            assert {fence for fence in fences if fence} <= {"bash run", "python run"}, page


@pytest.mark.full
@pytest.mark.parametrize(
    "page", [page for page in TUTORIALS if page.stem != "index"], ids=lambda page: page.stem
)
def test_a_tutorial_runs_within_its_time(page: Path, tmp_path: Path) -> None:
    if page.stem == "reading-the-report":
        unpacked_run("finished", tmp_path / "runs").rename(tmp_path / "runs" / "quickstart")
    (tmp_path / "page.py").write_text(script(page))
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    before = os.times()
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "page.py", path],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    after = os.times()
    work = after.children_user + after.children_system - before.children_user
    work -= before.children_system
    print(f"{page.stem}: {work:.0f} s of processor time, {time.monotonic() - started:.0f} s")
    assert work < AT_MOST_S
