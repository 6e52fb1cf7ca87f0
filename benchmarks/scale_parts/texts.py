"""Small files that describe huge things: each command answers, or names the limit."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

from hwnas.core import resources
from hwnas.core.yaml_data import read_yaml

BASE = {"name": "mobile", "resolutions": [32], "stem": {"widths": [16]}, "head": {"width": 128}}
STAGE = {"widths": [16], "depths": [1], "kernels": [3], "expands": [3]}
WIDE = {**STAGE, "widths": list(range(8, 520, 8))}
DEEP = {**STAGE, "depths": [63, 64]}
SPACES: dict[str, list[dict[str, Any]]] = {
    "widths": [WIDE] * 4,
    "widths and expansions": [{**WIDE, "kernels": [3, 5, 7], "expands": [*range(1, 17)]}] * 4,
    "depths": [DEEP] * 8,
    "depths, 32 stages": [DEEP] * 32,
    "39,999 expansions": [{**STAGE, "expands": [1 + i / 2000 for i in range(39_999)]}],
}


def make_spaces(n: int, folder: Path) -> None:
    """YAML files, and the commands on each."""
    commands = []
    for name, stages in SPACES.items():
        path = folder / f"{name.replace(' ', '_')}.yaml"
        path.write_text(json.dumps({**BASE, "stages": stages}))
        commands += [
            ["space", "show", str(path)],
            ["space", "sample", str(path)],
            ["profile", "local", "--space", str(path), "--dry-run"],
        ]
    (folder / "commands.json").write_text(json.dumps(commands))


def make_configs(n: int, folder: Path) -> None:
    """Configurations with n unknown keys, at the top, in a section, and less than the limit."""
    digits = read_yaml(resources.resource("configs", "digits.yaml"))
    unknown = {f"key{i}": 1 for i in range(n)}
    few = dict(list(unknown.items())[: n // 3])
    made = {
        "top": {**digits, **unknown},
        "top_few": {**digits, **few},
        "section_few": {**digits, "train": {**digits["train"], **few}},
        "constraints": {**digits, "search": {"constraints": [{"a": 1}] * (n // 6)}},
    }
    commands = []
    for name, data in made.items():
        path = folder / f"{name}.yaml"
        path.write_text(json.dumps(data, indent=0))
        commands.append(["run", str(path), "--run", str(folder / "run"), "--dry-run"])
    (folder / "commands.json").write_text(json.dumps(commands))


def run_commands(n: int, folder: Path) -> dict[str, Any]:
    """Exit status, processor seconds, and the error of each."""
    found = []
    for command in json.loads((folder / "commands.json").read_text()):
        before = _child_seconds()
        done = subprocess.run(
            [sys.executable, "-m", "hwnas", *command], capture_output=True, text=True
        )
        seconds = round(_child_seconds() - before, 1)
        words = done.stderr.partition("\n")[0] if done.returncode else "an answer"
        name = " ".join(Path(part).name for part in command)
        found.append({"command": name, "exit": done.returncode, "seconds": seconds, "says": words})
    return {"commands": found, "slowest_seconds": max(row["seconds"] for row in found)}


def _child_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
