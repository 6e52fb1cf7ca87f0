"""The example notebook was executed, is small, and runs from top to bottom."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import hwnas

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "examples" / "notebook.ipynb"
CELLS = json.loads(NOTEBOOK.read_text())["cells"]
CODE = ["".join(cell["source"]) for cell in CELLS if cell["cell_type"] == "code"]


def test_every_cell_was_executed_in_order_and_without_an_error() -> None:
    cells = [cell for cell in CELLS if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    kinds = {output["output_type"] for cell in cells for output in cell["outputs"]}
    assert kinds <= {"display_data", "execute_result", "stream"}
    assert NOTEBOOK.stat().st_size < 1_000_000


def test_objects_drew_themselves() -> None:
    shown = [
        "".join(output["data"]["text/html"])
        for cell in CELLS
        for output in cell.get("outputs", ())
        if "text/html" in output.get("data", {})
    ]
    assert sum("<svg" in page for page in shown) >= 2, "the space and the winner"
    assert sum("<table" in page for page in shown) >= 4
    assert any("<progress" in page for page in shown)
    plots = [output for cell in CELLS for output in cell.get("outputs", ())]
    assert any("application/vnd.plotly.v1+json" in one.get("data", {}) for one in plots)


def test_links_and_paths_lead_somewhere_for_everybody() -> None:
    text = NOTEBOOK.read_text()
    assert not re.search(r"/(?:work|home|root)/", text)
    for target in re.findall(r"\]\((\.\./[^)#]+)", text):
        assert (NOTEBOOK.parent / target).resolve().is_file(), target


def test_outputs_that_no_timing_changes_are_those_of_today() -> None:
    """The space, its table of choices, the range of MACs, and warnings of the kit."""
    space = hwnas.space("mobilenet_tiny", resolutions=[8, 12], num_classes=10)
    macs = space.cost(space.sample(1000, seed=0), "macs")
    outputs = [output for cell in CELLS for output in cell.get("outputs", ())]
    pages = ["".join(one.get("data", {}).get("text/html", ())) for one in outputs]
    assert space._repr_html_() in pages and hwnas.space_show(space)._repr_html_() in pages
    printed = ["".join(one.get("text", ())) for one in outputs]
    assert f"{macs.min() / 1e3:.0f} to {macs.max() / 1e3:.0f} thousand MACs\n" in printed
    kit = re.sub(r'"\s+"', "", (ROOT / "export" / "bench_protocol.py").read_text())
    kinds = ("the machine became", "unsteady machine")
    warnings = [text.strip() for text in printed if text.startswith(kinds)]
    for part in (part for one in warnings for part in re.split(r"\d+%", one)):
        assert part in kit, part


@pytest.mark.full
def test_it_runs_from_top_to_bottom(tmp_path: Path) -> None:
    (tmp_path / "cells.py").write_text("\n".join(CODE))
    done = subprocess.run(
        [sys.executable, "cells.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
