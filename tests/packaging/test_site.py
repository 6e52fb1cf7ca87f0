"""The documentation builds without a warning into a site that opens from a file."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
LOADED = re.compile(
    r"""<(?:script|img|iframe)[^>]+src=["']?(https?:)?//|<link[^>]+href=["']?https?:"""
)
"""What a browser fetches from elsewhere when it opens a page; links to click do not count."""


def pages_of(nav: object) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    return [
        page for part in (nav.values() if isinstance(nav, dict) else nav) for page in pages_of(part)
    ]  # type: ignore[attr-defined]


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
        assert re.search(r'role="img".*<title>[^<]{10,}</title>', figure.read_text(), re.S), figure


def test_the_citation_names_this_version() -> None:
    import hwnas

    found = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert found["version"] == hwnas.__version__
    cited = {one["identifiers"][0]["value"] for one in found["references"]}
    text = (ROOT / "README.md").read_text()
    assert all(paper.removeprefix("arXiv:") in text for paper in cited) and len(cited) == 4


@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("mkdocs", "material", "mkdocstrings")),
    reason="not installed: pip install 'hwnas[docs]'",
)
def test_the_site_builds_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    pages = sorted((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 40
    for page in pages:
        text = page.read_text()
        assert not LOADED.search(text), page
        if page.name == "404.html":  # its links are absolute
            continue
        for target in re.findall(r'href="(?!https?:|#|mailto:|data:|/)([^"#?]+)', text):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
    functions = (tmp_path / "site" / "reference" / "functions.html").read_text()
    for name in ("run", "profile", "search", "load_bundle", "doctor"):
        assert f'id="hwnas.api.{"bundle" if name == "load_bundle" else name}.{name}"' in functions
