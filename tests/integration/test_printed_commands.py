"""Commands that hwnas prints run from where the user is, whatever the folder is called."""

from __future__ import annotations

import ast
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import hwnas
from hwnas.cli.main import app
from hwnas.core.command import command_line
from hwnas.core.errors import UserError
from hwnas.core.progress import silent
from hwnas.pipeline.graph import stages_of
from hwnas.pipeline.opening import open_project

VERBS = [
    *(verb.name or getattr(verb.callback, "__name__", "") for verb in app.registered_commands),
    *(str(group.name) for group in app.registered_groups),
]
PACKAGE = Path(hwnas.__file__).parent
NAMES = ("a run", "it's 100% $HOME", "-o", "--run", "ä;b&c", "*")


@pytest.mark.parametrize("name", NAMES)
def test_a_path_is_one_word_and_never_an_option(name: str) -> None:
    for path in (Path(name), Path("/tmp", name), Path("..", name)):
        program, verb, word = shlex.split(command_line("train", path))
        assert (program, verb) == ("hwnas", "train")
        assert Path(word) == path and not word.startswith("-")
    assert command_line("label", Path("runs/mine"), "--source", "trained") == (
        "hwnas label runs/mine --source trained"
    )


def by_hand(source: str) -> list[str]:
    """Commands in the texts of a module that hold a value which no shell was asked about."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.JoinedStr):
            parts = [p.value if isinstance(p, ast.Constant) else "\0" for p in node.values]
            text = "".join(map(str, parts))
            found += re.findall(rf"hwnas (?:{'|'.join(VERBS)})\b[^`;]*\0", text)
    return found


def python_lines(source: str) -> list[str]:
    """Commands `python -c CODE` in the texts of a module."""
    texts = [
        node.value
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    found = [re.findall(r"""python3? -c (?:"[^"]*"|'[^']*')""", text) for text in texts]
    assert all(lines or "python -c" not in text for text, lines in zip(texts, found, strict=True))
    return [line for lines in found for line in lines]


def test_commands_of_python_print_something() -> None:
    """In a process of their own: here, other tests have imported more than the command does."""
    modules = [*PACKAGE.rglob("*.py"), *(PACKAGE.parent / "export").glob("*.py")]
    lines = {line for path in modules for line in python_lines(path.read_text())}
    assert len(lines) >= 2
    for line in sorted(lines):
        _, *arguments = shlex.split(line)
        done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True)
        assert done.returncode == 0 and done.stdout.strip(), (line, done.stderr)


def test_no_command_is_composed_by_hand() -> None:
    assert by_hand("f'or `hwnas profile {device}` first'") and not by_hand("f'hwnas {version}'")
    for path in PACKAGE.rglob("*.py"):
        assert by_hand(path.read_text()) == [], f"{path}: core.command.command_line"


@pytest.fixture
def parent(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a run folder lies that has lost its labels and results; the user is there."""
    for name in NAMES[1:3]:
        run = tmp_path / name
        shutil.copytree(folder, run)
        shutil.rmtree(run / "search/main/verify")
        (run / "labels/supernet.json").unlink()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def words(line: str) -> list[str]:
    """What a shell would make of the line."""
    program, *found = shlex.split(line)
    assert program == "hwnas"
    return found


def run(line: str) -> None:
    app(args=[*words(line), "--dry-run", "--format", "json"], standalone_mode=False)


@pytest.mark.usefixtures("its_machine")
@pytest.mark.parametrize(("name", "is_absolute"), [(NAMES[1], True), (NAMES[2], False)])
def test_printed_commands_run(
    name: str, is_absolute: bool, parent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = parent / name if is_absolute else Path(name)
    found = hwnas.open_run(given)
    with pytest.raises(UserError) as error:
        found.table()
    lines = [str(error.value.fix)]
    with pytest.raises(UserError) as error:
        found.labels()
    lines.append(str(error.value.fix))
    with open_project(
        given, progress_for=lambda _: silent, command="test", read_only=True
    ) as project:
        lines += [stage.command for stage in stages_of(project)]
    assert {words(line)[0] for line in lines} >= {"profile", "train", "search", "verify"}
    if is_absolute:
        monkeypatch.chdir("/")
    for line in dict.fromkeys(lines):
        run(line)
    with pytest.raises(UserError) as error:
        hwnas.search(given, settings={"train.steps": 3, "search.top_k": 2})
    stale = str(error.value.fix).split(" && ")
    assert words(stale[0])[0] == "train"
    assert all("train.steps=3" in words(line) for line in stale), "with the settings of the command"
    for line in stale:
        run(line)


def test_a_device_of_a_file_is_profiled_by_the_name_that_is_printed(
    folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine.yaml").write_text("schema_version: 1\n")
    given = tmp_path / "run"
    shutil.copytree(folder, given)
    settings = {"devices": [str(tmp_path / "mine.yaml")]}
    with open_project(
        given, changes=settings, progress_for=lambda _: silent, command="test", read_only=True
    ) as project:
        line = stages_of(project)[0].command
    run(f"{line} --set {shlex.quote(f'devices=[{tmp_path}/mine.yaml]')}")
