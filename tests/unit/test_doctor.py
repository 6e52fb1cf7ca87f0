"""`hwnas doctor`: what it finds is there, and damage of every kind is named with the way out."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import hwnas
from hwnas.cli.main import app
from hwnas.core.errors import CheckFailed
from hwnas.core.resources import kit_module
from hwnas.core.settings import settings_of
from hwnas.pipeline.config import ExperimentConfig
from hwnas.studies import machine
from hwnas.studies.installation import Finding, installation, optional_packages, rivals

ROOT = Path(__file__).resolve().parents[2]


def distribution(
    folder: Path, name: str, version: str, files: str = "", metadata: str = ""
) -> None:
    """The record of an installed package."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{metadata}"
    )
    (info / "RECORD").write_text(files)


def by_name(found: object) -> dict[str, Finding]:
    return {one.what: one for one in found}  # type: ignore[attr-defined]


def test_all_is_well_where_all_is_well(tmp_path: Path) -> None:
    """In a process of its own: nothing is written at home, and torch stays out of it."""
    code = (
        "import sys, json, hwnas\n"
        "found = hwnas.doctor()\n"
        "assert 'torch' not in sys.modules\n"
        "print(json.dumps(found.to_dict()))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}
    environment.pop("HWNAS_CACHE")
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    rows = {(row["about"], row["what"]): row for row in shown["table"]}
    abouts = {about for about, _ in rows}
    groups = {"name", "versions", "optional", "devices", "processors", "memory", "caches"}
    assert abouts == groups or sys.platform != "linux"
    for package in ("torch", "onnxruntime", "timm"):
        row = rows["versions", package]
        assert (row["found"], row["state"]) == (importlib.metadata.version(package), "ok")
    assert rows["caches", "hwnas"]["found"].startswith(str(tmp_path / ".cache" / "hwnas"))
    assert "CPUExecutionProvider" in rows["devices", "onnxruntime"]["found"]
    assert shown["problems"] == sum(row["state"] == "problem" for row in shown["table"])
    assert all(row["fix"] for row in shown["table"] if row["state"] in ("absent", "problem"))
    assert not any(tmp_path.iterdir())


def test_every_extra_for_users_is_listed_with_its_install_line() -> None:
    found = by_name(optional_packages())
    assert {"litert", "openvino", "coreml", "serve"} <= set(found)
    assert not {"dev", "docs", "bench"} & set(found)
    for name, one in found.items():
        is_there = one.state == "ok"
        assert is_there != (one.fix == f"pip install 'hwnas[{name}]'"), one


def test_requirements_that_are_missing_or_too_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs = "Requires-Dist: numpy>=999\nRequires-Dist: no-such-package>=1\nRequires-Dist: rich\n"
    needs += "Requires-Dist: never; python_version < '3'\n"
    needs += "Provides-Extra: more\nRequires-Dist: rich>=999; extra == 'more'\n"
    distribution(tmp_path, "hwnas", "9.9", metadata=needs)
    monkeypatch.syspath_prepend(tmp_path)
    found = by_name(installation())
    assert found["numpy"].state == "problem" and ">=999" in found["numpy"].found
    assert found["numpy"].fix == "pip install 'numpy>=999'"
    assert found["no-such-package"].found == "not installed"
    assert found["rich"].state == "ok" and "never" not in found
    assert found["requirements"].state == "problem" and "9.9" in found["requirements"].found
    (extra,) = optional_packages()
    assert extra.found == "lacks rich>=999" and extra.state == "absent"


def test_another_package_of_this_name_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    distribution(tmp_path, "slimnet", "0.2.1", "hwnas/__init__.py,,\nhwnas/predict.py,,\n")
    (tmp_path / "hwnas").mkdir()
    (tmp_path / "hwnas" / "__init__.py").write_text("")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    found = by_name(rivals())
    assert found["slimnet"].state == "problem"
    assert found["slimnet"].fix.startswith("pip uninstall slimnet, ")
    assert str(tmp_path / "hwnas") in found["module hwnas"].found
    monkeypatch.setattr(machine, "_probe", lambda _: {"error": "not asked"})
    with pytest.raises(CheckFailed, match="slimnet") as failed:
        app(args=["doctor", "--format", "json"], standalone_mode=False)
    assert failed.value.exit_code == 3
    shown = json.loads(capsys.readouterr().out)
    assert shown["problems"] >= 2 and shown.keys() == hwnas.doctor().to_dict().keys()


def test_the_command_in_the_folder_of_programs_is_no_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python puts the folder of an installed command first on its path."""
    (tmp_path / "hwnas").write_text("#!/usr/bin/env python3\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert all(str(tmp_path) not in one.found for one in rivals())
    (tmp_path / "hwnas.py").write_text("")
    assert by_name(rivals())["module hwnas"].found.startswith(f"a second module in {tmp_path}")


def test_a_copy_of_hwnas_that_is_not_imported_is_named_and_no_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hwnas" / "cli").mkdir(parents=True)
    for name in ("__init__.py", "cli/main.py"):
        (tmp_path / "hwnas" / name).write_text("")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    copies = [one for one in rivals() if str(tmp_path / "hwnas") in one.found]
    assert [one.state for one in copies] == ["ok"]


@pytest.mark.parametrize("theirs", ["__version__ = '0.1.0'\n__all__ = ['run_hwnas']\n", None])
def test_a_command_line_whose_package_was_replaced_says_so(
    theirs: str | None, tmp_path: Path
) -> None:
    """Another package wrote its `__init__` over ours, or took it away when it was uninstalled."""
    (tmp_path / "hwnas" / "cli").mkdir(parents=True)
    ours = (ROOT / "hwnas" / "cli" / "__init__.py").read_text()
    (tmp_path / "hwnas" / "cli" / "__init__.py").write_text(ours)
    if theirs is not None:
        (tmp_path / "hwnas" / "__init__.py").write_text(theirs)
    done = subprocess.run(
        [
            sys.executable,
            "-I",
            "-S",
            "-c",
            f"import sys; sys.path[:0] = [{str(tmp_path)!r}]; import hwnas.cli",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "changed by another package" in done.stderr and "--force-reinstall" in done.stderr


def test_quotas_of_containers_and_too_many_threads_are_slow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = kit_module("bench_host")
    (tmp_path / "cpu.max").write_text("100000 100000\n")
    monkeypatch.setattr(host, "CGROUP", tmp_path)
    monkeypatch.setattr(host, "OWN_CGROUPS", tmp_path / "none")
    monkeypatch.setattr(host.os, "cpu_count", lambda: 8)
    monkeypatch.setattr(host.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(host.os, "getloadavg", lambda: (0.7, 0.0, 0.0))
    found = by_name(machine.processors())
    assert found["usable"].state == "slow" and found["usable"].found.startswith("1 of 8")
    assert found["load"].state == "slow" and "noisy" in found["load"].found
    answer = {"threads": 8, "cuda": [], "mps": False, "seconds": 20.0}
    monkeypatch.setattr(machine, "_probe", lambda _: {**answer, "providers": ["P"]})
    slow = [one for one in machine.devices() if one.state == "slow"]
    assert [one.what for one in slow] == ["GPUs", "threads of torch", "torch"]
    assert slow[1].fix == "export OMP_NUM_THREADS=1"
    monkeypatch.setattr(
        machine, "_probe", lambda _: {**answer, "cuda": [["H200", 150e9]], "providers": ["P"]}
    )
    assert by_name(machine.devices())["GPUs"] == Finding("devices", "GPUs", "H200, 150 GB")


def test_little_memory_is_told_by_the_limit_of_the_container(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = {
        "/proc/meminfo": "MemTotal: 64000000 kB\nMemAvailable: 60000000 kB\n",
        "/sys/fs/cgroup/memory.max": "2000000000\n",
        "/sys/fs/cgroup/memory.current": "500000000\n",
    }
    monkeypatch.setattr(kit_module("bench_host"), "read_text", lambda path: files.get(path, ""))
    found = by_name(machine.memory())["main"]
    assert (found.state, found.found) == ("slow", "1.5 GB available of 2.0 GB")
    files["/sys/fs/cgroup/memory.max"] = "max\n"
    assert by_name(machine.memory())["main"].state == "ok"


def test_a_package_that_crashes_on_import_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "No module named 'nosuch'" in machine._probe("import nosuch")["error"]
    assert "-6" in machine._probe("import os; os.abort()")["error"]
    monkeypatch.setattr(machine, "TORCH", "raise OSError('libcudart.so.13: cannot open')")
    monkeypatch.setattr(machine, "ONNX_RUNTIME", "import os; os.abort()")
    states = {one.what: one.state for one in machine.devices()}
    assert states["torch"] == states["onnxruntime"] == "problem" and "GPUs" not in states


def test_folders_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HWNAS_CACHE", str(tmp_path / "file"))
    monkeypatch.setenv("HWNAS_DATA", str(tmp_path / "none"))
    found = by_name(machine.caches())
    assert found["hwnas"].state == "slow" and "not a folder" in found["hwnas"].found
    assert found["HWNAS_DATA"].state == "problem"
    folder = tmp_path / "cache"
    folder.mkdir()
    (folder / "bytes").write_bytes(bytes(2_500_000))
    monkeypatch.setenv("HWNAS_CACHE", str(folder))
    assert by_name(machine.caches())["hwnas"].found == f"{folder}, 2.5 MB"


@pytest.mark.parametrize("file", ["hwnas/studies/machine.py", "docs/troubleshooting.md"])
def test_advice_to_set_a_key_names_an_existing_setting(file: str) -> None:
    keys = re.findall(r"--set ([a-z_.]+)=", (ROOT / file).read_text(encoding="utf-8"))
    known = {setting.key for setting in settings_of(ExperimentConfig)}
    assert keys and set(keys) <= known
