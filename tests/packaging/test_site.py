"""The documentation builds without a warning into a site that opens from a file."""

from __future__ import annotations

import ast
import importlib.util
import itertools
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
NAMES = "chromium", "chromium-browser", "google-chrome"
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
LOADED = re.compile(
    r"""<(?:script|img|iframe)[^>]+src=["']?(https?:)?//|<link[^>]+href=["']?https?:"""
)
"""What a browser fetches from elsewhere when it opens a page; links to click do not count."""
MOST_COLUMNS = 84
"""Columns of a block that the site shows without scrolling in a window of 1280 px."""
COUNTED = r"""<script>addEventListener("load", () => {
  const all = (selector, from = document) => [...from.querySelectorAll(selector)];
  const isWide = one => one.scrollWidth > one.clientWidth + 1;
  const tables = all("article table");
  const boxes = tables.flatMap(one => [one, one.closest(".md-typeset__scrollwrap") ?? one]);
  const commands = all(".language-bash pre > code");
  let covered = 0;
  for (const figure of all('article svg[role="img"]')) {
    const edge = figure.getBoundingClientRect();
    const words = all("text", figure).filter(one => one.textContent.trim().length > 1)
      .map(one => one.getBoundingClientRect());
    covered += words.filter(one => one.right > edge.right + 1 || one.left < edge.left - 1).length;
    words.forEach((one, n) => words.slice(0, n).forEach(other => {
      const width = Math.min(one.right, other.right) - Math.max(one.left, other.left);
      const height = Math.min(one.bottom, other.bottom) - Math.max(one.top, other.top);
      covered += width > 2 && height > 3 ? 1 : 0;
    }));
  }
  const code = all("article pre > code");
  document.body.setAttribute("data-md-color-scheme", "slate");
  document.querySelector("article").insertAdjacentHTML("beforeend", "<p><a href='#'>new</a></p>");
  const red = Number(getComputedStyle(all("article p a").pop()).color.match(/\d+/)[0]);
  const names = all("article th").flatMap(one => [...one.childNodes]).filter(one => one.data);
  const broken = names.filter(one => [...one.data.matchAll(/\w+/g)].some(word => {
    const range = document.createRange();
    range.setStart(one, word.index);
    range.setEnd(one, word.index + word[0].length);
    return range.getClientRects().length > 1;
  }));
  const letters = some => Math.max(0, ...some.flatMap(one => all("td", one))
    .map(one => parseFloat(getComputedStyle(one).fontSize)));
  const hasMany = one => all("thead th", one).length > 7;
  const parted = all(".language-bash pre").filter(one =>
    getComputedStyle(one).breakInside != "avoid");
  const found = {letters: letters(tables.filter(one => !hasMany(one))), parted: parted.length,
    letters_of_many: letters(tables.filter(hasMany)), tables: tables.length,
    wide_tables: boxes.filter(isWide).length,
    commands: commands.length, wide_commands: commands.filter(isWide).length,
    wide_code: code.filter(isWide).length, red, covered, broken: broken.length,
    links: all("article .headerlink").filter(one => one.getClientRects().length).length};
  document.body.insertAdjacentHTML("beforeend", `<p>counted ${JSON.stringify(found)}</p>`);
})</script>"""
"""Counts tables, those that need scrolling, blocks of commands, those too, blocks of any code that
do, the red of a link in the dark, covered words, names of columns with a word in two lines, links
beside headings, and commands that two sheets may share; measures letters of tables, also with many
columns."""

CROSSED = r"""<script>addEventListener("load", () => {
  const found = [];
  for (const figure of document.querySelectorAll("svg")) {
    const all = selector => [...figure.querySelectorAll(selector)];
    const edge = figure.getBoundingClientRect();
    const boxes = all("rect[stroke]").map(one => one.getBoundingClientRect());
    const isWithin = (one, box, gap) => one.left >= box.left + gap && one.right <= box.right - gap
      && one.top >= box.top + gap && one.bottom <= box.bottom - gap;
    for (const box of boxes) if (!isWithin(box, edge, 6)) found.push("box at the edge");
    const points = all("line, path:not(defs path), rect[stroke]").flatMap(one => {
      const at = one.getScreenCTM(), length = one.getTotalLength();
      return Array.from({length: Math.ceil(length / 2) + 1},
        (_, n) => one.getPointAtLength(2 * n).matrixTransform(at));
    });
    for (const words of all("text")) {
      const one = words.getBoundingClientRect();
      if (!isWithin(one, edge, 2)) found.push("cut: " + words.textContent);
      if (points.some(p => p.x > one.left && p.x < one.right && p.y > one.top + 2
        && p.y < one.bottom - 2)) found.push("crossed: " + words.textContent);
    }
  }
  const n = document.querySelectorAll("svg").length;
  document.body.innerHTML = `<p>figures ${n}: ${found.join("; ")}.</p>`;
})</script>"""
"""Lists words that a line, a curve or the frame of a box crosses, and what is at a card's edge."""


def pages_of(nav: object) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    return [
        page for part in (nav.values() if isinstance(nav, dict) else nav) for page in pages_of(part)
    ]  # type: ignore[attr-defined]


def titles_of(nav: object) -> list[str]:
    """The titles that the navigation gives to pages and sections."""
    if isinstance(nav, str):
        return []
    if isinstance(nav, dict):
        return [*nav, *titles_of([*nav.values()])]
    return [title for part in nav for title in titles_of(part)]  # type: ignore[attr-defined]


def test_every_page_has_its_place_in_the_navigation() -> None:
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    listed = pages_of(config["nav"])
    assert len(listed) == len(set(listed))
    own = {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")}
    made = {page for page in listed if page.startswith(("project/", "reference/"))}
    assert set(listed) - made == own
    doors = [next(iter(door)) for door in config["nav"][1:]]
    assert doors == ["Use", "Understand", "Extend", "Reproduce"]
    assert config["use_directory_urls"] is False and config["strict"] is True


def test_figures_have_a_text_for_those_who_do_not_see_them() -> None:
    for page in [ROOT / "README.md", *DOCS.rglob("*.md")]:
        for alternative, target in re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", page.read_text()):
            assert len(alternative) > 10, f"{page}: {target}"
            assert (page.parent / target).is_file(), f"{page}: {target}"
    for figure in (DOCS / "img").rglob("*.svg"):
        text = figure.read_text()
        assert re.search(r'role="img".*<title>[^<]{10,}</title>', text, re.S), figure
        (width,) = re.findall(r'^<svg [^>]*? width="(\d+)"', text)
        letters = [int(size) for size in re.findall(r'font-size="(\d+)"', text)]
        assert min(letters) * min(1, 358 / int(width)) >= 9, f"{figure}: letters on a phone"


def test_concepts_stand_beside_their_figures() -> None:
    """Every idea of the page has a figure, and every group of the glossary names its figures."""
    ideas, run = (DOCS / "concepts.md").read_text().split("\n## A run\n")
    sections = re.split(r"^## ", ideas, flags=re.M)[1:]
    shown = [re.findall(r"!\[[^\]]+\]\(img/([\w/]+\.svg)\)", section) for section in sections]
    assert all(len(found) == 1 for found in shown), shown
    drawn = {path.relative_to(DOCS / "img").as_posix() for path in (DOCS / "img").rglob("*.svg")}
    assert {found for (found,) in shown} == drawn
    titles = [section.split("\n")[0] for section in sections]
    anchors = {re.sub(r"[^a-z ]", "", title.lower()).replace(" ", "-") for title in titles}
    groups = re.split(r"^### ", run.partition("\n## Glossary\n")[2], flags=re.M)[1:]
    linked = [re.findall(r"\(#([a-z-]+)\)", group.partition("| term")[0]) for group in groups]
    assert all(linked) and {one for found in linked for one in found} == anchors


def test_the_citation_names_this_version() -> None:
    import hwnas

    found = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert found["version"] == hwnas.__version__
    cited = {one["identifiers"][0]["value"] for one in found["references"]}
    text = (ROOT / "README.md").read_text()
    assert all(paper.removeprefix("arXiv:") in text for paper in cited) and len(cited) == 4


def test_words_of_tables_are_not_broken() -> None:
    """Short words of commands stay whole, and names of columns end a line after a `_` only."""
    pytest.importorskip("mkdocs", reason="not installed: pip install 'hwnas[docs]'")
    spec = importlib.util.spec_from_file_location("site_lines", DOCS / "site_lines.py")
    assert spec is not None and spec.loader is not None
    hook = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hook)
    page = SimpleNamespace(file=SimpleNamespace(src_uri="troubleshooting.md"))

    def made(content: str) -> str:
        return hook.on_page_content(content, page=page, config=None, files=None)

    def whole(words: str) -> str:
        return f'<span class="whole">{words}</span>'

    assert made('<td><code>python -c "print(hwnas)" 123456789.12345</code></td>') == (
        f"<td><code>{whole('python')} {whole('-c')} {whole(chr(34) + 'print(hwnas)' + chr(34))}"
        " 123456789.12345</code></td>"
    )
    assert made("<p><code>python my file</code></p>") == "<p><code>python my file</code></p>"
    assert made("<th style='a:b'>constraint_met</th>") == "<th style='a:b'>constraint_<wbr>met</th>"
    assert made("<td><code>a/b.py</code></td>") == "<td><code>a/<wbr>b.py</code></td>"
    assert made("<td><code>timm/weights.safetensors</code></td>") == (
        "<td><code>timm/<wbr>weights<wbr>.safetensors</code></td>"
    )
    assert made("<td><code>word</code></td>") == f"<td><code>{whole('word')}</code></td>"
    assert made("<td>9.1% ± 1.1%</td>") == "<td>9.1% ±\N{NO-BREAK SPACE}1.1%</td>"
    assert made("<td>521, x 0.08</td>") == "<td>521, x\N{NO-BREAK SPACE}0.08</td>"


def test_what_a_function_returns_is_one_entry() -> None:
    """The reference shows every line that is not indented as a value of its own."""
    section = re.compile(r"^(?:Returns|Yields):\n((?:    .*\n?|\n(?=    ))+)", re.M)
    for path in sorted((ROOT / "hwnas").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                for found in section.findall(ast.get_docstring(node) or ""):
                    assert len(re.findall(r"^    \S", found, re.M)) == 1, f"{path}: {node.name}"


ASKED = (
    *("need a search", "install", "Tab key", "How many photos", "How long", "commercially"),
    *("usage data", "measure my phone", "slower than", "several devices", "Which limit"),
    *("interrupt", "shorter", "four GPUs", "my own network", "Which space", "`±`", "really better"),
    *("delete everything", "files do I ship", "Raspberry Pi", "network of my own", "cite"),
)
"""What users ask, each by words of its question."""


def test_questions_of_users_have_an_answer() -> None:
    """In a row of the page, with a command or a link to the page that says more."""
    rows = re.findall(r"^\| (.+?) \| (.+) \|$", (DOCS / "questions.md").read_text(), re.M)
    for words in ASKED:
        answers = [answer for question, answer in rows if words in question]
        assert len(answers) == 1 and re.search(r"\]\([^)]+\)|`hwnas", answers[0]), words


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    if any(
        importlib.util.find_spec(name) is None for name in ("mkdocs", "material", "mkdocstrings")
    ):
        pytest.skip("not installed: pip install 'hwnas[docs]'")
    out = tmp_path_factory.mktemp("docs") / "site"
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return out


def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 40
    for page in pages:
        text = page.read_text()
        assert not LOADED.search(text), page
        assert not re.search(r"<img(?![^>]*alt=\"[^\"]{10,}\")[^>]*>", text), f"{page}: no alt="
        for target in re.findall(r'href="(?!https?:|#|mailto:|data:|/)([^"#?]+)', text):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
    for page in (site / "reference").glob("*.html"):
        assert "<details" not in page.read_text(), f"{page}: arguments that are shown as a box"
        assert not re.search(r"<code>\w+,</code>", page.read_text()), f"{page}: two names in a row"
    functions = (site / "reference" / "functions.html").read_text()
    for name in ("run", "profile", "search", "load_bundle", "doctor"):
        assert f'id="hwnas.api.{"bundle" if name == "load_bundle" else name}.{name}"' in functions


def test_the_page_of_a_server_for_missing_pages_needs_no_other_file(site: Path) -> None:
    """A server shows it at any address, and a browser may open it as a file."""
    text = (site / "404.html").read_text()
    assert re.findall(r'href="(?!data:)([^"]*)"', text) == ["index.html"] and "src=" not in text


def test_every_page_is_within_two_clicks_of_the_start(site: Path) -> None:
    """By the links of the text; the menu and the search come on top."""

    def linked(page: Path) -> set[Path]:
        text = page.read_text().partition("<article")[2].partition("</article>")[0]
        targets = re.findall(r'href="(?!https?:|#|mailto:)([^"#]+\.html)', text)
        return {(page.parent / target).resolve() for target in targets}

    site = site.resolve()
    near = linked(site / "index.html")
    near = {site / "index.html", *near, *(page for one in near for page in linked(one))}
    far = {str(page.relative_to(site)) for page in {*site.rglob("*.html")} - near}
    assert far <= {"404.html", "project/readme.html"}


def test_the_menu_names_every_page(site: Path) -> None:
    """The theme hides the first README of a section behind the section's own name."""
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    menu = (site / "questions.html").read_text().partition('data-md-component="content"')[0]
    shown = {" ".join(text.split()) for text in re.findall(r">([^<>]+)<", menu)}
    assert set(titles_of(nav)) <= shown


def test_every_fence_became_a_block(site: Path) -> None:
    """A head that mkdocs does not know turns the rest of a page inside out."""
    for page in sorted(site.rglob("*.html")):
        text = re.sub(r"<(pre|script)\b.*?</\1>", "", page.read_text(), flags=re.DOTALL)
        assert "```" not in text, page.name
    for page in DOCS.glob("*.md"):
        built = (site / page.name).with_suffix(".html").read_text()
        fences = re.compile(r"^ *```.*?^ *```$", re.DOTALL | re.MULTILINE)
        for diagram in re.findall(r"^```text diagram\n(.*?)^```$", page.read_text(), re.S | re.M):
            assert max(map(len, diagram.splitlines())) <= MOST_COLUMNS, page.name
        text, blocks = fences.subn("", page.read_text())
        assert len(re.findall(r'<div class="[^"]*highlight', built)) == blocks, page.name
        steps = built.count("<ol>")
        assert steps == len(re.findall(r"^1\. ", text, re.M)), f"{page.name}: steps start anew"
    extending = (site / "extending.html").read_text()
    assert '<span class="filename">shapes.py</span>' in extending
    for page in (site / "concepts.html", site / "project" / "ARCHITECTURE.html"):
        assert re.search(r'class="[^"]*\bdiagram\b', page.read_text()), "its lines are not wrapped"


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")
def test_the_search_works_from_a_file(site: Path, tmp_path: Path) -> None:
    """Without a server, where browsers start no worker and fetch no index."""
    done = subprocess.run(
        [
            *(str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu"),
            *("--disable-dev-shm-usage", f"--user-data-dir={tmp_path}"),
            *("--virtual-time-budget=20000", "--dump-dom"),
            f"{(site / 'index.html').as_uri()}?q=supernet",
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if "</html>" not in done.stdout:
        pytest.skip(f"Chromium does not start here: {done.stderr[-300:]}")
    found = re.search(r'md-search-result__meta">(\d+) matching documents', done.stdout)
    assert found and int(found[1]) > 5


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")
@pytest.mark.parametrize(
    ("page", "most"), [("concepts.html", 12), ("tutorials/reading-the-report.html", 3)]
)
def test_prints_have_whole_figures(site: Path, tmp_path: Path, page: str, most: int) -> None:
    """Two figures share a sheet, and the picture of a report fits on one."""
    done = subprocess.run(
        [
            *(str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu"),
            *("--disable-dev-shm-usage", f"--user-data-dir={tmp_path}/profile"),
            *("--no-pdf-header-footer", f"--print-to-pdf={tmp_path}/page.pdf"),
            (site / page).as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if not (tmp_path / "page.pdf").is_file():
        pytest.skip(f"Chromium does not start here: {done.stderr[-300:]}")
    pages = len(re.findall(rb"/Type /Page\b", (tmp_path / "page.pdf").read_bytes()))
    assert 0 < pages <= most


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")
def test_prints_have_whole_commands_and_equal_letters(site: Path, tmp_path: Path) -> None:
    """With the rules for paper on the screen: tables of many columns had larger letters."""
    style = (DOCS / "stylesheet.css").read_text().replace("@media print", "@media all")
    found = count(site / "results.html", tmp_path, 1280, style)
    assert found["commands"] > 10 and found["parted"] == 0
    assert 0 < found["letters_of_many"] <= found["letters"]


def count(page: Path, folder: Path, width: int, style: str = "") -> dict[str, float]:
    """What `COUNTED` finds at this width; the narrowest window of Chromium has 500 px."""
    counted = page.with_name("counted.html")
    body = f"<style>body {{ width: {width}px }} {style}</style>{COUNTED}</body>"
    counted.write_text(page.read_text().replace("</body>", body))
    done = subprocess.run(
        [
            *(str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu"),
            *("--disable-dev-shm-usage", f"--user-data-dir={folder}"),
            *(f"--window-size={max(width, 500)},900", "--virtual-time-budget=20000", "--dump-dom"),
            counted.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    counted.unlink()
    found = re.search(r"<p>counted ({.*?})</p>", done.stdout)
    if found is None:
        pytest.skip(f"Chromium does not start here: {done.stderr[-300:]}")
    return dict(json.loads(found[1]))


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")
@pytest.mark.parametrize("width", [500, 1280])
@pytest.mark.parametrize("page", ["configuration.html", "reference/functions.html"])
def test_settings_and_arguments_are_read_without_scrolling(
    site: Path, tmp_path: Path, page: str, width: int
) -> None:
    """On a phone their rows are stacked."""
    found = count(site / page, tmp_path, width)
    assert found["tables"] > 20 and found["wide_tables"] == 0


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")
@pytest.mark.parametrize("page", ["concepts.html", "tutorials/photos-to-phone.html"])
def test_a_phone_shows_commands_whole_and_nothing_below_headings(
    site: Path, tmp_path: Path, page: str
) -> None:
    """`--set` with a long setting was cut off, and the mark of a long heading took a line."""
    found = count(site / page, tmp_path, 390)
    assert found["commands"] > 3 and found["wide_commands"] == 0
    assert found["links"] == 0 < count(site / page, tmp_path, 1280)["links"]


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")
@pytest.mark.parametrize(
    ("page", "least"),
    [
        ("deploy.html", 3),
        ("project/latency_tables/readme.html", 3),
        ("tutorials/photos-to-phone.html", 0),
    ],
)
def test_a_desk_shows_code_and_tables_whole_and_links_in_the_dark(
    site: Path, tmp_path: Path, page: str, least: int
) -> None:
    found = count(site / page, tmp_path, 1280)
    assert found["tables"] >= least and found["wide_tables"] == 0 and found["wide_code"] == 0
    assert found["red"] == 0x7B, "a link on code has a contrast of 4.5"


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")
def test_no_words_of_a_drawing_are_covered_or_cut_off(site: Path, tmp_path: Path) -> None:
    """The drawings of the notebook; its axes had numbers under their titles."""
    page = site / "project" / "examples" / "notebook.html"
    assert page.read_text().count('role="img"') == 3
    legend = re.findall(r'<text x="(\d+)" y="18" [^>]*?>([^<]+)</text>', page.read_text())
    assert len(legend) > 2
    for (x, name), (following, _) in itertools.pairwise(legend):
        assert int(x) + 7 * len(name) < int(following) - 16, f"a mark on {name}"
    found = count(page, tmp_path, 1280)
    assert found["covered"] == 0
    assert found["tables"] > 4 and found["wide_tables"] == 0 and found["broken"] == 0


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")
def test_no_words_of_a_figure_are_crossed_or_at_the_edge(tmp_path: Path) -> None:
    """The figures of `docs/make_figures.py`: a dashed line ran through "exit 0"."""

    def found(*figures: str) -> str:
        page = tmp_path / "figures.html"
        page.write_text(f"<meta charset='utf-8'><body>{''.join(figures)}{CROSSED}</body>")
        done = subprocess.run(
            [
                *(str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu"),
                *("--disable-dev-shm-usage", f"--user-data-dir={tmp_path}/profile"),
                *("--virtual-time-budget=20000", "--dump-dom", page.as_uri()),
            ],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        shown = re.search(r"<p>figures (.*?)</p>", done.stdout)
        if shown is None:
            pytest.skip(f"Chromium does not start here: {done.stderr[-300:]}")
        return shown[1]

    head = '<svg xmlns="http://www.w3.org/2000/svg" width="90" height="50">'
    wrong = '<text x="9" y="30">one</text><line x1="20" y1="0" x2="20" y2="50" stroke="red"/>'
    assert found(f'{head}{wrong}<rect width="9" height="9" stroke="red"/></svg>') == (
        "1: box at the edge; crossed: one."
    )
    drawn = [path.read_text() for path in sorted((DOCS / "img").rglob("*.svg"))]
    assert len(drawn) == 8 and found(*drawn) == "8: ."


def test_lines_end_between_words(site: Path) -> None:
    """A line does not end before a unit, inside an option, or in the middle of a file's name."""
    for page in sorted(site.rglob("*.html")):
        text = page.read_text().partition("<article")[2].partition("</article>")[0]
        parted = re.sub(r'<span class="whole">[^<]*</span>', "", text)
        words = re.sub(r"<(pre|code|svg|script)\b.*?</\1>|<[^>]*>", "", parted, flags=re.DOTALL)
        assert not re.search(r"\d (%|ms|px)(?!\w)|\d \+- \d|\[[\d.]+, [\d.]+\]", words), page.name
        for block in re.findall(r'<div class="language-bash .*?</pre>', text, re.DOTALL):
            parts = re.sub(r'<span class="whole">[^<]*</span>|<[^>]*>', "", block)
            assert not re.search(r"(?<![\w-])--[a-z]", parts), f"{page.name}: {parts}"
        for code in re.findall(
            r"<code>([^<]*)</code>", re.sub(r"<pre.*?</pre>", "", text, flags=re.S)
        ):
            assert not re.search(r"(?<![\w-])--[a-z]|\w/\w", code), f"{page.name}: {code}"
    text = (site / "project/latency_tables/readme.html").read_text()
    assert '<td><code><span class="whole">measured</span></code></td>' in text
    text = (site / "configuration.html").read_text()
    assert '<code><span class="whole">--set</span> KEY=VALUE</code>' in text
    assert "<code>search<wbr>.closing<wbr>.n_<wbr>retimed</code>" in text
    assert (
        "<code>pipeline/<wbr>engine.py</code>" in (site / "project/ARCHITECTURE.html").read_text()
    )
