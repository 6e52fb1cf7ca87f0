"""Hooks of mkdocs: pages outside docs/, links between them, and the API reference.

The same Markdown is read on a code host and on the site. Links that lead out of docs/ are rewritten
to the copy of their target in the site; a target that is no page is copied beside it.
"""

from __future__ import annotations

import ast
import html
import json
import math
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
OUTSIDE = "project"
"""Folder of the site for files of the repository outside docs/."""

PAGES = (
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "SECURITY.md",
    "export/README.md",
    "examples/plugin/README.md",
    "examples/serve/README.md",
    "latency_tables/README.md",
)
NOTEBOOK = "examples/notebook.ipynb"
LINK = re.compile(r"(\]\()(?!https?:|mailto:|#)([^)#\s]+)")
FENCE = re.compile(r"^( *```\w+)[^\S\n]+([^\n]+?)[^\S\n]*$", re.MULTILINE)
"""The head of a block with a word: `run` (also `run needs=PACKAGE`) and `smoke` are for tests,
`diagram` keeps its lines on every screen, and anything else is the name of a file."""
ITEM = re.compile(r"(?:\d+\.|[-*]) +")
"""The head of an item of a list, at the start of a line."""

REFERENCE = {
    "functions": (
        "Functions",
        "Every verb of the command line is a function of `hwnas` with the same name and arguments. "
        "[Python](../python.md) has examples.",
    ),
    "results": ("Results", "The classes that the functions take and return, and the errors."),
    "contracts": (
        "Contracts of variants",
        "The Protocols that a space, a predictor, a searcher, ... of another package fulfils. "
        "[Extending](../extending.md) has an example of each.",
    ),
    "testing": (
        "Contract tests",
        "Suites of pytest that a variant subclasses with one fixture.",
    ),
}


def on_files(files: Files, *, config: Any) -> Files:
    """Adds the pages outside docs/, the files that pages link to, and the reference."""
    for name in PAGES:
        files.append(File.generated(config, _place(name), content=_text(name)))
    linked = {
        found
        for page in [*PAGES, *(f"docs/{file.src_uri}" for file in files if _is_own(file))]
        for _, target in LINK.findall((ROOT / page).read_text(encoding="utf-8"))
        if (found := _repository_path(page, target)) is not None
        and not found.startswith("docs/")
        and (ROOT / found).is_file()
        and found not in (*PAGES, NOTEBOOK)
    }
    for name in sorted(linked):
        content = (ROOT / name).read_bytes()
        files.append(File.generated(config, f"{OUTSIDE}/{name}.txt", content=content))
    files.append(File.generated(config, _place(NOTEBOOK), content=_notebook()))
    for name, content in _reference().items():
        files.append(File.generated(config, f"reference/{name}.md", content=content))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Files) -> str:
    """Rewrites links that lead from docs/ to the rest of the repository, and back.

    The words "API reference" link to the reference, which only the site has.
    """
    here = page.file.src_uri
    is_outside = here.startswith(f"{OUTSIDE}/")
    source = _source(here) if is_outside else f"docs/{here}"

    def moved(match: re.Match[str]) -> str:
        found = _repository_path(source, match[2])
        if found is None or here.startswith("reference/"):
            return match[0]
        return f"{match[1]}{posixpath.relpath(_place(found), posixpath.dirname(here) or '.')}"

    if not here.startswith("reference/"):
        reference = posixpath.relpath("reference/index.md", posixpath.dirname(here) or ".")
        markdown = markdown.replace(" API reference", f" [API reference]({reference})")
    return LINK.sub(moved, FENCE.sub(_fence, _indented(markdown)))


def _indented(markdown: str) -> str:
    """The text with four spaces before all that belongs to an item of a list.

    A code host takes as many as the head of the item has; mkdocs would end the list there, and
    count from 1 again after it.
    """
    lines, width, is_fenced = [], 0, False
    for line in markdown.split("\n"):
        if width and line.startswith(" " * width):
            lines.append("    " + line[width:])
            continue
        is_fenced ^= line.startswith("```")
        if line:
            head = None if is_fenced else ITEM.match(line)
            width = head.end() if head else 0
        lines.append(line)
    return "\n".join(lines)


def _fence(match: re.Match[str]) -> str:
    """The head of a block as the site knows it: a language, and the name of a file as its title."""
    if match[2] == "diagram":
        fence, language = match[1].rsplit("`", 1)
        return f"{fence}` {{ .{language} .diagram }}"
    return match[1] if match[2].split()[0] in ("run", "smoke") else f'{match[1]} title="{match[2]}"'


def _notebook() -> str:
    """The example notebook as a page, with the outputs that it was stored with."""
    parts = []
    for cell in json.loads(_text(NOTEBOOK))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        parts += [_output(output) for output in cell["outputs"]]
    return "\n\n".join(parts)


def _output(output: dict[str, Any]) -> str:
    """An output of a cell: HTML or text; plots need the notebook."""
    data = output.get("data", {"text/plain": output.get("text", "")})
    if figure := data.get("application/vnd.plotly.v1+json"):
        return f"{_plot(figure)}\n\n*In the notebook, it can be zoomed.*"
    if "text/html" in data:
        lines = "".join(data["text/html"]).splitlines()
        return f"<div>{''.join(line.strip() for line in lines)}</div>"
    return "```text\n" + "".join(data["text/plain"]).rstrip() + "\n```"


def _plot(figure: dict[str, Any]) -> str:
    """A stored plot of points and stairs as SVG; plotly itself has megabytes of script."""
    traces, layout = figure["data"], figure["layout"]
    ranges = []
    for axis in "xy":
        values = [value for trace in traces for value in trace[axis]]
        pad = 0.05 * (max(values) - min(values))
        ranges.append((min(values) - pad, max(values) + pad))
    (left, right), (low, high) = ranges

    def at(x: float, y: float) -> tuple[float, float]:
        return 64 + 404 * (x - left) / (right - left), 290 - 252 * (y - low) / (high - low)

    def text(x: float, y: float, words: str, anchor: str = "middle", more: str = "") -> str:
        style = f'font-size="13" text-anchor="{anchor}" fill="currentColor"'
        return f'<text x="{x:.0f}" y="{y:.0f}" {style} {more}>{html.escape(words)}</text>'

    names = [layout[f"{axis}axis"]["title"]["text"] for axis in "xy"]
    parts = [
        '<path d="M64 38V290H468" fill="none" stroke="currentColor"/>',
        text(266, 330, names[0]),
        text(2, 164, names[1], more='transform="rotate(-90 2 164)"'),
    ]
    shown = "{:" + layout["yaxis"].get("tickformat", ".3g") + "}"
    for x in _ticks(left, right):
        parts.append(text(at(x, low)[0], 308, f"{x:.3g}"))
    for y in _ticks(low, high):
        parts.append(text(58, at(left, y)[1] + 4, shown.format(y), "end"))
    for line in layout.get("shapes", ()):
        x = at(line["x0"], 0)[0]
        parts.append(f'<path d="M{x:.1f} 38V290" stroke="currentColor" stroke-dasharray="5 4"/>')
    parts += [
        text(at(note["x"], 0)[0] + 4, 282, note["text"], "start")
        for note in layout.get("annotations", ())
    ]
    legend = 64.0
    for trace in traces:
        colour, symbol = trace["marker"]["color"], trace["marker"].get("symbol", "circle")
        mark = {"star": "★", "x-thin-open": "x"}.get(symbol, "•")
        points = [at(*point) for point in zip(trace["x"], trace["y"], strict=True)]
        if "lines" in trace["mode"]:
            (x, y), *others = points
            stairs = "".join(f"H{x:.1f}V{y:.1f}" for x, y in others)
            parts.append(f'<path d="M{x:.1f} {y:.1f}{stairs}" fill="none" stroke="{colour}"/>')
        size = 22 if symbol == "star" else 18
        head = f'<g fill="{colour}" font-size="{size}" text-anchor="middle">'
        marks = [(x, y + size / 3) for x, y in points] + [(legend + 12, 20)]
        parts += [head, *(f'<text x="{x:.1f}" y="{y:.1f}">{mark}</text>' for x, y in marks), "</g>"]
        parts.append(text(legend + 24, 18, trace["name"], "start"))
        legend += 44 + 7.5 * len(trace["name"])
    title = html.escape(f"Plot of {names[1]} over {names[0]}")
    return (
        '<svg class="plot" viewBox="-14 0 494 340" width="480" role="img"><title>'
        f"{title}</title>{''.join(parts)}</svg>"
    )


def _ticks(low: float, high: float) -> list[float]:
    """Three to five round numbers between two others."""
    step = 10.0 ** math.floor(math.log10(high - low))
    step *= next(part for part in (0.2, 0.25, 0.5, 1, 2) if (high - low) / (part * step) < 5)
    first = math.ceil(low / step)
    return [n * step for n in range(first, math.floor(high / step) + 1)]


def _is_own(file: File) -> bool:
    """Whether a file of the site is a page that lies in docs/."""
    return file.is_documentation_page() and file.generated_by is None


def _text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def _repository_path(page: str, target: str) -> str | None:
    """Path in the repository of a relative link; None if it leads out of it."""
    found = posixpath.normpath(posixpath.join(posixpath.dirname(page), target))
    return None if found.startswith("..") or posixpath.isabs(found) else found


def _place(path: str) -> str:
    """Where a file of the repository is in the site."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if (ROOT / path).is_dir():
        path = posixpath.join(path, "README.md")
    if path == NOTEBOOK:
        return f"{OUTSIDE}/{path.removesuffix('.ipynb')}.md"
    if path not in PAGES:
        return f"{OUTSIDE}/{path}.txt"
    return f"{OUTSIDE}/{path.replace('README', 'readme')}"  # README: index, which no menu lists


def _source(page: str) -> str:
    """The file in the repository of a page outside docs/."""
    return page.removeprefix(f"{OUTSIDE}/").replace("readme", "README")


def _reference() -> dict[str, str]:
    """Pages of the reference, from the public names of the package."""
    places = _public_places()
    functions = [place for name, place in places.items() if name[0].islower()]
    classes = [place for name, place in places.items() if name[0].isupper()]
    own = "hwnas.interfaces"
    modules = {
        "functions": functions,
        "results": classes,
        "contracts": [f"{own}.{name}" for name in ("modules", "protocols", "records")],
        "testing": [
            f"hwnas.testing.{path.stem}"
            for path in sorted((ROOT / "hwnas" / "testing").glob("*.py"))
            if not path.stem.startswith("_")
        ],
    }
    pages = {}
    for name, (title, head) in REFERENCE.items():
        body = "\n\n".join(f"::: {place}" for place in modules[name])
        pages[name] = f"# {title}\n\n{head}\n\n{body}\n"
    rows = [f"- [{title}]({name}.md): {head}" for name, (title, head) in REFERENCE.items()]
    text = "\n".join(rows)
    pages["index"] = (
        "# API reference\n\nGenerated from the docstrings. `import hwnas` has every function and "
        f"class of the first two pages.\n\n{text}\n- [Configuration](../configuration.md): every "
        "setting of a run.\n"
    )
    return pages


def _public_places() -> dict[str, str]:
    """{public name: its module and name}, from the imports for type checkers in `hwnas`."""
    tree = ast.parse(_text("hwnas/__init__.py"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    found = {
        (alias.asname or alias.name): f"{node.module}.{alias.name}"
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    return dict(sorted(found.items(), key=lambda item: item[0].lower()))
