"""The report in a real browser: on a phone, on a desk, and on paper. Skipped without Chromium."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace

import pytest

from hwnas.reporting.data import Front, NetRow, Point, ReportData
from hwnas.reporting.html import render_report
from hwnas.reporting.sections.classes import Classes, Picture

NAMES = "chromium", "chromium-browser", "google-chrome"
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
PHONE, DESK, PAPER = 390, 1200, 703  # px; an A4 page within the margins of the report

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")

MEASURE = """<script>addEventListener("load", () => setTimeout(() => {
  if (%s) { dispatchEvent(new Event("beforeprint")); }
  setTimeout(() => {
    const box = node => {
      const { left, right, width } = node.getBoundingClientRect();
      return [left, right, width];
    };
    const all = selector => [...document.querySelectorAll(selector)].map(box);
    parent.postMessage(JSON.stringify({
      name: "%s", page: document.documentElement.scrollWidth, width: innerWidth,
      cards: all(".card b"), photos: all(".photos img"), card: all(".card").pop(),
      charts: all(".main-svg"), tables: all("table"),
      cells: all("td, th").filter(cell => cell[2] === 0).length,
      rows: [...document.querySelectorAll("table.results tr")].map(row => [...row.cells].map(box)),
    }), "*");
  }, 300);
}, 100));</script>"""

OUTER = """<body><script>
  const found = [];
  addEventListener("message", event => {
    found.push(event.data);
    if (found.length === 4) { document.body.textContent = "[" + found.join(",") + "]"; }
  });
</script><iframe src="phone.html" style="width:%dpx;height:800px;border:0"></iframe>
<iframe src="desk.html" style="width:%dpx;height:800px;border:0"></iframe>
<iframe src="single.html" style="width:%dpx;height:800px;border:0"></iframe>
<iframe src="paper.html" style="width:%dpx;height:800px;border:0"></iframe></body>"""


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, object]]:
    """Boxes of the report's parts as [left, right, width], by page."""
    folder = tmp_path_factory.mktemp("browser")
    html, single = render_report(_data(("pixel_8_pro", "pi"))), render_report(_data(("pi_int8",)))
    on_paper = html.replace("@media print", "@media all").replace("@media screen", "@media print")
    pages = {"phone": (html, "false"), "desk": (html, "false"), "paper": (on_paper, "true")}
    pages["single"] = (single, "false")
    for name, (page, is_paper) in pages.items():
        probe = MEASURE % (is_paper, name)
        (folder / f"{name}.html").write_text(page.replace("</body>", f"{probe}</body>"))
    (folder / "outer.html").write_text(OUTER % (PHONE, DESK, DESK, PAPER))
    command = [
        *(str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
        *(f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=15000"),
        *("--window-size=1200,900", "--dump-dom", (folder / "outer.html").as_uri()),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    text = re.search(r"\[\{.*\}\]", done.stdout, re.DOTALL)
    if text is None:
        pytest.skip(f"Chromium does not start here: {done.stderr[-300:]}")
    return {page["name"]: page for page in json.loads(text[0])}


def _data(devices: tuple[str, ...]) -> ReportData:
    rows = tuple(
        NetRow(
            name, 300_812_960, 5_483_032, 1.0, 0.08187, 0.07493, name != "largest",
            "97cbe61f1af77d08", device, "model.int8.onnx", 1.0, 0.07562, name == "winner",
            0.1128, 1.01,
        )
        for device in devices
        for name in ("winner", "largest", "largest on smaller images")
    )  # fmt: skip
    points = tuple(Point(0.1 * i, 0.5 + 0.03 * i) for i in range(1, 9))
    fronts = tuple(Front(d, "validation top-1", points, points) for d in ("pixel_8_pro", "pi"))
    names = tuple(f"a class {i}" for i in range(10))
    confusion = tuple(tuple(30 if i == j else 2 for j in range(10)) for i in range(10))
    data = ReportData("photos: main", table=rows, fronts=fronts)
    photos = (Picture("", "a class 0", "a class 1", 0.9),) * 8
    return replace(data, classes=(Classes("pi", "model.onnx", names, confusion, wrong=photos),))


def test_on_a_phone_name_accuracy_latency_and_verdict_are_seen(measured) -> None:
    phone = measured["phone"]
    assert phone["width"] == PHONE and phone["page"] <= PHONE, "the page itself does not scroll"
    assert len(phone["cards"]) >= 4
    assert all(0 <= left < right <= PHONE for left, right, _ in phone["cards"])
    rows = [row for row in phone["rows"] if len(row) > 4]
    assert len(rows) == 7  # with the heading
    for row in rows:
        assert all(width > 20 and right <= PHONE for _, right, width in row[:4])


@pytest.mark.parametrize("page", ["desk", "single"])
def test_on_a_desk_no_column_has_to_be_scrolled_to(measured, page: str) -> None:
    desk = measured[page]
    assert desk["width"] == DESK and desk["page"] <= DESK and desk["tables"]
    assert all(0 <= left < right <= DESK - 28 for left, right, _ in desk["tables"]), desk["tables"]


def test_on_paper_nothing_is_cut_and_no_column_is_hidden(measured) -> None:
    paper = measured["paper"]
    assert paper["width"] == PAPER
    assert paper["charts"] and paper["tables"]
    for part in ("charts", "tables", "cards"):
        assert all(right <= PAPER + 1 for _, right, _ in paper[part]), (part, paper[part])
    assert paper["cells"] == 0, "no cell without a width"
    assert all(len(row) in (1, 12) for row in paper["rows"])
    lefts = [left for left, *_ in paper["photos"]]
    assert len(lefts) == 8 and lefts == sorted(set(lefts)), "eight photos in a row"
    assert paper["card"][1] > PAPER - 16, "the cards fill the row"  # 15 px: a scroll bar
