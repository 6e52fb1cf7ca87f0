"""Runtimes that report usage to their makers are told not to, in hwnas and in the kit."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from hwnas.core.env import onnx_runtime, require
from hwnas.core.resources import resource
from tests.bundles import kit_module

OPENVINO = """
try:
    import openvino_telemetry
except ImportError:
    openvino_telemetry = None
"""


@pytest.fixture
def openvino(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Packages that look like OpenVINO's."""
    (tmp_path / "openvino.py").write_text(OPENVINO + "__version__ = '2026.1.0-1'\n")
    (tmp_path / "openvino_telemetry.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    names = ("openvino", "openvino_telemetry", "run_openvino")
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield
    for name in names:
        sys.modules.pop(name, None)


@pytest.mark.usefixtures("openvino")
@pytest.mark.parametrize("where", ["hwnas", "kit"])
def test_openvino_finds_no_telemetry(where: str) -> None:
    found = (
        require("openvino", extra="openvino")
        if where == "hwnas"
        else kit_module("run_openvino").openvino
    )
    assert found.openvino_telemetry is None


@pytest.mark.parametrize("where", ["hwnas.exporters.opened", "run_onnxruntime", "ort_run"])
def test_onnxruntime_leaves_no_trace_in_the_home_folder(where: str, tmp_path: Path) -> None:
    # without ORT_DISABLE_TELEMETRY, ONNX Runtime 1.32 makes .cache/Microsoft when it is imported
    code = f"import importlib; importlib.import_module({where!r}); import onnxruntime"
    environment = {key: os.environ[key] for key in ("PATH", "PYTHONPATH") if key in os.environ}
    environment["PYTHONPATH"] = os.pathsep.join([*sys.path, str(resource("export"))])
    environment["HOME"] = str(tmp_path)
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("where", ["hwnas", "run_onnxruntime", "ort_run"])
def test_onnxruntime_is_told_to_report_nothing(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    fake = SimpleNamespace(
        disable_telemetry_events=lambda: calls.append("off"), __version__="1.20.0"
    )
    kit_module("bundle_files")  # the kit is on the path
    monkeypatch.setitem(sys.modules, "onnxruntime", fake)  # type: ignore[arg-type]
    monkeypatch.delitem(sys.modules, where, raising=False)
    if where == "hwnas":
        assert onnx_runtime() is fake  # type: ignore[comparison-overlap]
    else:
        importlib.import_module(where)
        monkeypatch.delitem(sys.modules, where)
    assert calls == ["off"]
