"""Names from files reach the terminal as text: no markup, no control characters."""

from __future__ import annotations

import io
import json
import logging
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest

from hwnas.cli.main import main
from hwnas.cli.output import Format, emit, progress_for
from hwnas.core.errors import UserError
from hwnas.core.resources import resource
from hwnas.core.text import guarded_streams, in_words, visible
from hwnas.latency.table import LatencyTable
from tests.bundles import colour_bundle, colour_manifest, failing_net, run_kit
from tests.limits import bounded

OBEYED = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028\u2029]")
HOSTILE = ("[/b]", "[bold]x[/bold]", "\x1b[2J\x1b]0;t\x07", "\x9b31m", "a\rb\x08", "\u202egnp.exe")
TABLE = "amd-epyc-2vcpu-mobilenet_v3"


@pytest.mark.parametrize("text", [*HOSTILE, "\udc80", "\u2028", "\x7f"])
def test_what_a_terminal_obeys_is_shown_by_its_code(text: str) -> None:
    shown = visible(text)
    assert not OBEYED.search(shown)
    assert shown.encode()  # no lone surrogate is left
    assert visible(shown) == shown


@pytest.mark.parametrize("text", ["", "plain", "two\nlines", "\u732b \xe9 \u200d \xa0"])
def test_other_text_stays_as_it_is(text: str) -> None:
    assert visible(text) == text
    assert visible("a\nb", one_line=True) == "a\\nb"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def written(monkeypatch: pytest.MonkeyPatch, name: str, write: Callable[[], object]) -> str:
    """What a terminal gets, without what rich and the progress line say to it on purpose."""
    stream = Terminal()
    monkeypatch.setattr(sys, name, stream)
    with guarded_streams():
        write()
    return re.sub(r"\x1b\[[0-9;]*m|\r\x1b\[2K", "", stream.getvalue())


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("by", ["print", "error", "log", "progress", "table", "json"])
def test_no_way_to_the_terminal_forgets_it(
    by: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {text: 1, "name": text}
    handler = logging.getLogger("hwnas.test_terminal")

    def log() -> None:
        handler.addHandler(stream := logging.StreamHandler(sys.stderr))
        handler.warning("%s", text)
        handler.removeHandler(stream)

    ways: dict[str, tuple[str, Callable[[], object]]] = {
        "print": ("stdout", lambda: print(text)),
        "error": ("stderr", lambda: sys.stderr.write(str(UserError(text, found=text, where=text)))),
        "log": ("stderr", log),
        "progress": ("stderr", lambda: progress_for(text)(1, 1, text)),
        "table": ("stdout", lambda: emit([row], format=Format.table, title=text)),
        "json": ("stdout", lambda: emit([row], format=Format.json, title=text)),
    }
    shown = written(monkeypatch, *ways[by])
    assert not OBEYED.search(shown)
    assert visible(text) in shown or json.dumps(text) in shown or by == "table"


def hostile_table(text: str, folder: Path) -> Path:
    """A shipped table that says `text` wherever a table may say what it likes."""
    table = LatencyTable.load(resource("latency_tables", f"{TABLE}.json"))
    device = replace(table.device, name=text)
    path = folder / "t.json"
    replace(table, device=device, facts={**table.facts, "host": text}, warnings=(text,)).save(path)
    return path


def verbs(path: str) -> list[list[str]]:
    """Every verb that says the name of a file, and so do its errors."""
    tables = [["table", verb, path] for verb in ("show", "validate", "fit")]
    runs = ("status", "train", "label", "search", "finetune", "export", "report", "undo", "verify")
    return [
        *tables,
        ["table", "diff", TABLE, path],
        ["table", "merge", TABLE, path, "--out", path],
        ["table", "convert", "pixel1", path, "--out", path],
        ["table", "estimate", path, "--space", "mobilenet_v3"],
        ["space", "show", path],
        ["space", "validate", "mobilenet_tiny", path],
        ["config", "show", path],
        ["config", "show", "digits", "--set", f"{path}=1"],
        ["config", "show", "digits", "--set", f'name="{path}"'],
        ["list", path],
        [path],
        ["predictor", "eval", "--records", path],
        ["pretrained", "import", path],
        *([verb, path] for verb in runs),
    ]


def test_every_verb_shows_names_as_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = "".join(HOSTILE).replace("/", "_").replace(".", "_")
    for content in (None, json.dumps({"name": name})):
        if content is not None:
            Path(name).write_text(content)
        for arguments in verbs(name):
            with pytest.raises(SystemExit):
                main(arguments)
            out, err = capsys.readouterr()
            assert "Traceback" not in err
            assert not OBEYED.search(out + err), (arguments, out + err)
            assert out or "Usage" in err or visible(name) in err, (arguments, err)


@pytest.mark.parametrize("text", ["[/b]", "[bold]x[/bold]"])
def test_tables_of_hostile_devices_are_listed(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(hostile_table(text, tmp_path))
    for arguments in (["show", path], ["diff", path, TABLE], ["validate", path]):
        with pytest.raises(SystemExit):
            main(["table", *arguments])
        assert text in capsys.readouterr().out


@pytest.mark.parametrize("text", HOSTILE[2:])
def test_the_kit_shows_class_names_as_text(text: str, tmp_path: Path) -> None:
    manifest = colour_manifest()
    names = (text, *manifest.input.class_names[1:])
    manifest = replace(manifest, input=replace(manifest.input, class_names=names))
    colour_bundle(tmp_path / "bundle", manifest)
    samples = sorted((tmp_path / "bundle" / "samples").glob("*.ppm"))
    odd = tmp_path / f"image {text}.ppm"
    shutil.copy(samples[0], odd)
    done: Any = run_kit(tmp_path / "bundle", "ort_run.py", *samples, odd)
    assert done.returncode == 0, done.stderr
    assert not OBEYED.search(done.stdout)
    assert visible(text) in done.stdout


def test_names_in_a_model_do_not_reach_the_terminal_by_the_log_of_its_runtime(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The log is written by C++, past everything that escapes text here."""
    manifest = colour_manifest()
    (model,) = manifest.models
    path = tmp_path / "failing.onnx"
    onnx.save(failing_net("\x1b[2J\x1b]0;t\x07"), path)
    colour_bundle(tmp_path / "bundle", manifest, models={model.path: path})
    with pytest.raises(SystemExit) as ended:
        main(["verify", str(tmp_path / "bundle")])
    shown = capfd.readouterr()
    assert ended.value.code == 3 and "does not run the model" in shown.err
    assert not OBEYED.search(shown.out + shown.err)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        ({"max": 1.5, "on": ["a", "b"], "held": None}, "{max: 1.5, on: [a, b], held: null}"),
        (("ant", "bee"), "ant, bee"),
        ([3, 32, 32], "[3, 32, 32]"),
        ([], "[]"),
        ("'as it is'", "'as it is'"),
        (Path("a/b"), "a/b"),
    ],
)  # fmt: skip
def test_values_in_errors_are_written_as_in_yaml(value: object, text: str) -> None:
    assert str(UserError("no", found=value)) == f"no\n  found: {text}"


def test_deeply_nested_values_are_written_at_once() -> None:
    """Not in a time that doubles with every level."""
    value: object = []
    for _ in range(100):
        value = [value]
    with bounded(seconds=5, memory=1 << 28):
        assert in_words({"a": value}) == "{a: " + 101 * "[" + 101 * "]" + "}"
