"""The command line: verbs, exit codes, what goes to stdout, and speed of imports."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.command import hwnas

VERBS = [
    "run",
    "profile",
    "table",
    "space",
    "train",
    "label",
    "predictor",
    "search",
    "finetune",
    "export",
    "verify",
    "analyze",
    "prune",
    "report",
    "status",
    "list",
]


def process(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command as a process of its own."""
    command = [sys.executable, "-m", "hwnas", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def examples() -> list[list[str]]:
    """Every `hwnas ...` example in the help texts of the verbs."""
    from hwnas.cli.main import app

    found = []
    groups = [app, *(group.typer_instance for group in app.registered_groups)]
    for command in (command for group in groups for command in group.registered_commands):
        found += re.findall(r"Example: `hwnas ([^`]+)`", command.callback.__doc__ or "")
    assert len(found) >= 15
    return [example.split() for example in found]


@pytest.mark.parametrize("arguments", examples(), ids=" ".join)
def test_the_example_of_every_help_text_runs(arguments: list[str], tmp_path: Path):
    for n, name in enumerate(("cat", "dog")):
        (tmp_path / "my_photos" / name).mkdir(parents=True)
        pixels = np.random.default_rng(n).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "my_photos" / name / "0.png")
    done = hwnas(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_help_lists_every_verb_without_heavy_imports():
    code = (
        "import sys\n"
        "from hwnas.cli.main import main\n"
        "try:\n"
        "    main(['--help'])\n"
        "except SystemExit:\n"
        "    pass\n"
        "known = {'torch', 'onnx', 'onnxruntime', 'sklearn', 'scipy', 'plotly'}\n"
        "heavy = known & set(sys.modules)\n"
        "sys.exit(f'imported {sorted(heavy)}' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for verb in VERBS:
        assert re.search(rf"^\W*{verb}\b", done.stdout, re.MULTILINE), verb


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb: str):
    done = hwnas(verb, "--help")
    assert done.returncode == 0 and "Usage" in done.stdout


def test_json_on_stdout_is_only_json():
    done = process("space", "show", "mobilenet_tiny", "--format", "json")
    shown = json.loads(done.stdout)
    assert shown["n_archs"] >= 10**6 and len(shown["table"]) > 20


def test_user_errors_exit_1_without_a_traceback_and_debug_shows_it(tmp_path: Path):
    done = process("train", str(tmp_path / "none"))
    assert done.returncode == 1
    assert done.stderr.startswith("error: this is not a run folder") and not done.stdout
    assert "Traceback" not in done.stderr
    assert "fix:" in done.stderr
    debug = process("train", str(tmp_path / "none"), "--debug")
    assert debug.returncode == 1 and "Traceback" in debug.stderr


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["space", "show"], ["space", "sample", "mobilenet_tiny", "-n", "x"]]
)
def test_wrong_usage_exits_2(arguments: list[str]):
    assert hwnas(*arguments).returncode == 2


def test_the_command_of_these_tests_is_the_process():
    """`tests.command.hwnas` ends, prints and complains as a process does."""
    for arguments in (["nonsense"], ["list", "proxies"], ["train", "/none"]):
        one, other = hwnas(*arguments), process(*arguments)
        assert (one.returncode, one.stdout) == (other.returncode, other.stdout)
        assert one.stderr == other.stderr


def test_config_problems_are_listed_at_once(tmp_path: Path):
    done = hwnas(
        "run", "quickstart", "--run", str(tmp_path / "r"), "--dry-run",
        "--set", "train.stpes=3", "--set", "seed=-1",
    )  # fmt: skip
    assert done.returncode == 1
    assert "train.stpes: unknown key; did you mean 'steps'?" in done.stderr
    assert "seed:" in done.stderr
    assert not (tmp_path / "r").exists()


def test_a_dry_run_needs_no_torch(tmp_path: Path):
    code = (
        "import sys\n"
        "from hwnas.cli.main import main\n"
        "try:\n"
        "    main(['run', 'digits', '--dry-run'])\n"
        "except SystemExit as stop:\n"
        "    assert not stop.code\n"
        "heavy = {'torch', 'sklearn', 'plotly'} & set(sys.modules)\n"
        "sys.exit(f'imported {sorted(heavy)}' if heavy else 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr


def test_a_dry_run_prints_the_plan_and_writes_nothing(tmp_path: Path):
    done = hwnas("run", "quickstart", "--run", str(tmp_path / "r"), "--dry-run", "--format", "json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["table"]
    names = [row["stage"] for row in rows]
    assert names == [
        "profile/local", "train", "label", "predictor", "search/main", "finetune/main",
        "export/main", "verify/main", "references/main",
    ]  # fmt: skip
    assert {row["status"] for row in rows} == {"new"} and all(row["cost"] for row in rows)
    assert not (tmp_path / "r").exists()
