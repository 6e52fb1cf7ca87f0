"""examples/plugin is a package of its own: installed, listed, run, and tested by hwnas's suites."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = ROOT / "examples" / "plugin"
VARIANTS = {"spaces": "thin", "proxies": "depth", "exporters": "onnx_gz", "transports": "niced"}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a user who has the plugin, installed without network."""
    pytest.importorskip("hatchling", reason="build backend is not installed")
    folder = tmp_path_factory.mktemp("plugin")
    source = shutil.copytree(PLUGIN, folder / "source")
    site = folder / "site"
    install = ["install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run(
        [sys.executable, "-m", "pip", *install, "--target", str(site), str(source)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), str(ROOT)])}


def python(environment: dict[str, str], *arguments: str, cwd: Path = PLUGIN) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        env=environment,
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def test_its_variants_are_listed_and_not_imported(installed: dict[str, str]):
    code = (
        "import sys\n"
        "from hwnas.pipeline.config import REGISTRIES\n"
        "rows = [vars(r.describe(n)) for r in REGISTRIES.values() for n in r.names]\n"
        "assert not any(name.startswith('hwnas_example') for name in sys.modules)\n"
        "import json; print(json.dumps(rows))"
    )
    rows = json.loads(python(installed, "-c", code))
    found = {row["name"]: row for row in rows if row["package"] == "hwnas-example 0.1.0"}
    assert set(found) == set(VARIANTS.values())
    assert all(row["summary"] and not row["missing"] for row in found.values())
    for kind, name in VARIANTS.items():
        shown = python(installed, "-m", "hwnas", "list", kind, "--format", "json")
        assert name in {row["name"] for row in json.loads(shown)["table"]}


def test_a_run_uses_all_of_them(installed: dict[str, str], tmp_path: Path):
    run = tmp_path / "run"
    # How fast this machine is now decides whether timings can be judged, and not this test.
    arguments = ["run", "tiny.yaml", "--run", str(run), "--report-only", "--format", "json"]
    python(installed, "-m", "hwnas", *arguments)
    checks = json.loads((run / "search" / "main" / "verify" / "results.json").read_text())["checks"]
    timed = ("estimate on niced_local", "constraint on niced_local")
    assert {check["name"] for check in checks if not check["passed"]} <= {*timed}
    assert all(check["passed"] is not False for check in checks)
    is_judged = all(check["passed"] for check in checks)
    assert list((run / "search" / "main" / "export").rglob("model.onnx.gz"))
    table = json.loads((run / "tables" / "niced_local.json").read_text())
    assert table["device"]["transport"] == "niced"
    status = python(installed, "-m", "hwnas", "status", str(run), "--format", "json")
    states = {row["stage"]: row["status"] for row in json.loads(status)["table"]}
    assert states.pop("verify/main") == ("done" if is_judged else "continues")
    assert set(states.values()) == {"done"}


def test_its_tests_pass(installed: dict[str, str], tmp_path: Path):
    options = ["-p", "no:cacheprovider", f"--rootdir={tmp_path}", "-W", "ignore"]
    out = python(installed, "-m", "pytest", *options, "tests")
    assert " passed" in out and " skipped" not in out
