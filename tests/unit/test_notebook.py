"""Objects draw themselves in notebooks, text is escaped, and progress is one bar in place."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import hwnas
from hwnas.api.progress import progress_bars
from hwnas.core.html_table import MOST_ROWS, html_table


def test_a_table_is_escaped_scrolls_and_is_cut() -> None:
    found = html_table([{"<a>": "<script>"}, {"b": 0.123456, "c": None, "d": True}], title="<t>")
    assert "<script>" not in found and "&lt;script&gt;" in found and "&lt;a&gt;" in found
    assert "overflow-x:auto" in found and ">0.1235<" in found and ">yes<" in found
    assert found.count("<tr>") == 3 and found.count("<td") == 8
    long = html_table([{"n": n} for n in range(MOST_ROWS + 1_234)])
    assert long.count("<tr>") == MOST_ROWS + 1 and "and 1,234 rows more" in long
    assert "<table>" not in html_table([], title="nothing")


def test_results_of_functions_draw_themselves() -> None:
    space = hwnas.space("mobilenet_v3", resolutions=[160], num_classes=10)
    table = hwnas.latency_table("amd-epyc-2vcpu-mobilenet_v3")
    estimate = table.estimate(space, space.sample(3, seed=0))
    found = hwnas.search(
        space, score=lambda codes: -space.cost(codes, "params"), tables=[table], budget=200
    )
    shown = [hwnas.list("searchers"), space, table, estimate, found]
    pages = [one._repr_html_() for one in shown]
    assert all("<table>" in page or "<svg" in page for page in pages)
    assert pages[3].count("<tr>") == 4 and f"{estimate.ms[0]:.4g}" in pages[3]
    assert found.winner.arch.key in pages[4]
    assert str(estimate).splitlines()[1].startswith(f"{estimate.ms[0]:.4g} ms (")
    many = str(table.estimate(space, space.sample(1000, seed=0))).splitlines()
    assert len(many) == 12 and many[-1] == "... and 990 more"


class Notebook:
    """What IPython shows: the outputs of a cell, each as it was last."""

    def __init__(self) -> None:
        self.outputs: list[dict[str, str]] = []

    def display(self, data: dict[str, str], *, raw: bool, display_id: bool) -> Any:
        assert raw and display_id
        self.outputs.append(data)
        place = len(self.outputs) - 1

        def update(data: dict[str, str], *, raw: bool) -> None:
            self.outputs[place] = data

        return SimpleNamespace(update=update)


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> Notebook:
    page = Notebook()
    shell, shown = ModuleType("IPython"), ModuleType("IPython.display")
    shell.get_ipython = lambda: SimpleNamespace(config={"IPKernelApp": {}})  # type: ignore[attr-defined]
    shown.display = page.display  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", shell)
    monkeypatch.setitem(sys.modules, "IPython.display", shown)
    return page


def test_a_stage_is_one_bar_that_fits_its_cell(notebook: Notebook) -> None:
    for stage in ("train", "label"):
        show = progress_bars(stage)
        for done in range(101):
            show(done, 100, "<note>")
    assert len(notebook.outputs) == 2
    last = notebook.outputs[0]["text/html"]
    assert "width:100%" in last and "value='100'" in last and "max='100'" in last
    assert "train: 100 of 100" in last and "&lt;note&gt;" in last


def test_elsewhere_progress_is_a_line_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    show = progress_bars("train")
    show(1, 1, "done")
    assert capsys.readouterr().err.strip() == "train: 1/1  done"
