"""Commands in the documents run, links lead somewhere, and numbers name their command."""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
from itertools import takewhile
from pathlib import Path

import pytest
import typer
from typer.core import TyperGroup

from hwnas.cli.main import app
from tests.old_runs import unpacked_run

ROOT = Path(__file__).resolve().parents[2]
COMMAND = typer.main.get_command(app)
TROUBLESHOOTING = ROOT / "docs" / "troubleshooting.md"
USAGE_ERROR = typer.BadParameter.__base__
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def test_results_are_newest_first():
    """Each section has its dates; the last one only links to pages with results of their own."""
    text = (ROOT / "docs" / "results.md").read_text()
    *sections, links = re.split(r"^## ", text, flags=re.M)[1:]
    assert "*Measured " not in links and links.startswith("Predictor and search")
    day = r"2026-\d\d-\d\d"
    newest = []
    for section in sections:
        stated = re.match(rf".+\n\n\*Measured (?:{day} to )?({day})\.\*\n", section)
        assert stated, section.split("\n")[0]
        newest.append(stated[1])
        assert max(re.findall(day, section)) == stated[1], section.split("\n")[0]
    assert newest == sorted(newest, reverse=True) and len(newest) > 10


COMMANDS_OF_SYMPTOMS = re.compile(r"`(?:hwnas|python3?|pip|ssh|adb|ss|hostname|chromium|ls) ")


def test_every_symptom_has_a_command_that_shows_its_cause():
    rows = re.findall(r"^\| (.+) \| (.+) \| .+ \|$", TROUBLESHOOTING.read_text(), re.M)
    rows = [row for row in rows if row[0] != "symptom" and not row[0].startswith("---")]
    assert len(rows) > 30
    for symptom, command in rows:
        assert COMMANDS_OF_SYMPTOMS.search(command), symptom


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


RUN = re.compile(r"^```python run(?: needs=(\w+))?\n(.*?)^```", re.MULTILINE | re.DOTALL)


def python_blocks(path: Path) -> list[str]:
    """All blocks that tests run, also those that need a package that is not installed."""
    return [block for _, block in RUN.findall(path.read_text())]


def blocks_that_run_here(path: Path) -> list[str]:
    found = RUN.findall(path.read_text())
    return [text for needs, text in found if not needs or importlib.util.find_spec(needs)]


@pytest.mark.parametrize(
    "path", [path for path in DOCUMENTS if python_blocks(path)], ids=lambda path: path.name
)
def test_python_of_a_document_runs_from_top_to_bottom(path: Path, tmp_path: Path):
    """One process per document. A small finished run stands in for `runs/quickstart`."""
    unpacked_run("finished", tmp_path / "runs").rename(tmp_path / "runs" / "quickstart")
    shutil.copy(tmp_path / "runs" / "quickstart" / "config.yaml", tmp_path / "quickstart")
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(blocks_that_run_here(path))],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout or not blocks_that_run_here(path)
    if path.name == "README.md":  # comments of their own lines are what is printed
        shown = re.findall(r"^# (.+)", "\n".join(python_blocks(path)), re.M)
        assert len(shown) == 4 and "\n".join(shown) in done.stdout


def test_python_blocks_that_are_not_run_are_none_of_the_python_page():
    text = (ROOT / "docs" / "python.md").read_text()
    assert len(python_blocks(ROOT / "docs" / "python.md")) == text.count("```python") >= 10


def texts_with_links() -> list[Path]:
    """Everything that is written for readers, also beside the code."""
    folders = "benchmarks", "configs", "docs", "examples", "export", "latency_tables", "tests"
    pages = [page for folder in folders for page in (ROOT / folder).rglob("*.md")]
    return sorted({*DOCUMENTS, *pages})


@pytest.mark.parametrize("path", texts_with_links(), ids=lambda path: str(path.relative_to(ROOT)))
def test_relative_links_lead_to_files_of_the_repository(path: Path):
    for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", path.read_text()):
        found = (path.parent / target).resolve()
        assert found.is_relative_to(ROOT) and found.exists(), target


@pytest.mark.parametrize("folder", ["benchmarks", "configs", "docs", "examples", "export"])
def test_no_path_leads_out_of_the_repository(folder: str):
    """Data that do not ship are in $DATA; a path that only one machine has helps nobody."""
    outside = re.compile(r"\.\./shared|(?<![\w$}])/(?:work|home|root)/")
    for path in (ROOT / folder).rglob("*"):
        if path.suffix in (".md", ".py", ".yaml", ".toml"):
            assert not outside.findall(path.read_text()), path


def shown_commands() -> list[tuple[str, str]]:
    """(file, command) of every `hwnas ...` in the documents' shell blocks and configs' heads."""
    texts = {}
    for path in [*DOCUMENTS, *(ROOT / "docs" / "tutorials").glob("*.md")]:
        blocks = re.findall(r"^```(?:bash|sh).*?\n(.*?)^```", path.read_text(), re.M | re.S)
        texts[path.name] = "".join(blocks).replace("\\\n", " ")
    for path in sorted((ROOT / "configs").glob("*.yaml")):
        head = takewhile(lambda line: line.startswith("#"), path.read_text().splitlines())
        texts[path.name] = "\n".join(re.sub(r"^#( *Run:)?", "", line) for line in head)
    found = re.compile(r"(?:^|[ ;&(])hwnas +([a-z][^\n#|;&()]*)", re.M)
    return [(name, m.strip()) for name, text in texts.items() for m in found.findall(text)]


def parse(command: str) -> None:
    """Read the words behind `hwnas` as the command line does; nothing runs."""
    words = [w for w in shlex.split(command) if w not in ("--debug", "$options", "$")]
    words = list(takewhile(lambda w: w not in (">", "2>", "<"), words))
    found, name = COMMAND, "hwnas"
    while isinstance(found, TyperGroup):
        context = found.context_class(found, info_name=name)
        rest = found.parse_args(context, words)
        name, found, words = found.resolve_command(context, [*context._protected_args, *rest])
    found.make_context(name, words)


@pytest.mark.parametrize(("name", "command"), shown_commands())
def test_a_command_that_is_shown_exists_with_these_options(name: str, command: str):
    try:
        parse(command)
    except typer.Exit as asked_for_help:
        assert asked_for_help.exit_code == 0


def options_in_sentences() -> list[tuple[str, str, str]]:
    """(document, command, option) of the commands between backticks, outside of code blocks."""
    found = []
    for path in [*DOCUMENTS, *(ROOT / "docs" / "tutorials").glob("*.md")]:
        if path.name == "CHANGELOG.md":  # it also names options that were removed
            continue
        text = re.sub(r"^ *```.*?^ *```$", "", path.read_text(), flags=re.M | re.S)
        for span in re.findall(r"`hwnas ([^`]+)`", text):
            words = re.sub(r"\s+", " ", span)
            options = re.findall(r"(?:^| )(--[a-z][a-z0-9-]+)", words)
            found += [(path.name, words, option) for option in options]
    return found


def test_options_that_a_sentence_names_exist():
    checked = options_in_sentences()
    assert len(checked) > 50
    wrong = []
    for name, words, option in checked:
        command = COMMAND
        for word in words.split():
            if not isinstance(command, TyperGroup) or word not in command.commands:
                break
            command = command.commands[word]
        if isinstance(command, TyperGroup) and "device" in command.commands:
            command = command.commands["device"]  # `hwnas profile DEVICE`
        if not isinstance(command, TyperGroup):
            known = {flag for parameter in command.params for flag in parameter.opts}
            if option not in known and option != "--help":
                wrong.append(f"{name}: hwnas {words}: {option}")
    assert not wrong


def test_commands_are_found_and_wrong_ones_are_refused():
    assert len({name for name, _ in shown_commands()}) > 12
    with pytest.raises(USAGE_ERROR):
        parse("run quickstart --no-such-option")
    with pytest.raises(USAGE_ERROR):
        parse("run")
    with pytest.raises(USAGE_ERROR):
        parse("no-such-verb")
