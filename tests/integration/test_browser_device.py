"""A real Chromium as a device. Skipped without Chromium, or without npm and a network."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import hwnas
from hwnas.core.errors import UserError
from hwnas.core.resources import kit_module
from hwnas.core.store import read_jsonl
from hwnas.core.web_runtimes import fetch_runtime
from hwnas.devices.browser import CHROMIUMS, Config, build
from hwnas.interfaces import DeviceSpec, Transport
from hwnas.latency.plan import Plan, write_plan
from hwnas.latency.samples import read_samples
from hwnas.latency.sections import ProfileConfig
from hwnas.measure.networks import network_models
from hwnas.spaces.load import build_space
from tests.pages import free_port

CHROMIUM = next(filter(None, map(shutil.which, CHROMIUMS)), None)
HERE = Path(__file__).parent
PROVIDERS = {"litert": "cpu", "onnxruntime": "CPUExecutionProvider"}
SPACE: dict[str, Any] = {"resolutions": [16, 24]}

pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium"),
]


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One for all tests of this file; that of the session has imitations of the runtimes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HWNAS_CACHE", str(tmp_path_factory.mktemp("runtimes")))
        yield


@pytest.fixture(params=sorted(PROVIDERS))
def runtime(request: pytest.FixtureRequest) -> str:
    try:
        fetch_runtime(request.param)
    except UserError as error:
        pytest.skip(f"no {request.param} for browsers: {error}")
    return str(request.param)


def device(runtime: str, precision: Any = "fp32") -> DeviceSpec:
    return DeviceSpec(
        "browser", runtime, PROVIDERS[runtime], transport="browser", precision=precision
    )


def plan_for(spec: DeviceSpec, folder: Path, **settings: Any) -> Plan:
    space = build_space("mobilenet_tiny", SPACE, num_classes=10)
    codes = space.codes([space.smallest(), space.largest()])
    config = ProfileConfig(**{"rounds": 6, "min_rounds": 3, "target_error": 0.0, **settings})
    return write_plan(network_models(space, codes, spec, seed=0), spec, folder, config, seed=0)


def run(transport: Transport, plan: Plan) -> None:
    transport.run_bench(plan.path, plan.results, progress=lambda *_: None)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_networks_are_timed(runtime: str, precision: str, tmp_path: Path) -> None:
    spec = device(runtime, precision)
    plan = plan_for(spec, tmp_path)
    run(build(Config(), spec), plan)
    smallest, largest = read_samples(plan).timings().values()
    assert 0 < 5 * smallest.median_ms < largest.median_ms < 1000
    header = read_jsonl(plan.results)[0]
    assert "Chromium" in header["runtime_version"]


def test_a_model_that_does_not_load_is_explained(runtime: str, tmp_path: Path) -> None:
    spec = device(runtime)
    plan = write_plan({"broken": b"no model"}, spec, tmp_path, ProfileConfig(), seed=0)
    with pytest.raises(UserError, match="in the browser") as caught:
        run(build(Config(), spec), plan)
    assert "broken" in str(caught.value)


def test_a_runtime_that_does_not_load_ends_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not only a silent page that waits: it would be heard for ever."""
    model = write_plan({"m": b"m"}, device("litert"), tmp_path / "plan", ProfileConfig(), seed=0)
    (tmp_path / "empty").mkdir()
    given = [str(model.path), "--out", str(tmp_path / "r.jsonl"), "--port", "0"]
    given += ["--runtime", str(tmp_path / "empty"), "--browser", str(CHROMIUM)]
    assert kit_module("web_bench").main(given) == 1
    assert "in the browser: Failed to fetch dynamically" in capsys.readouterr().err


def test_a_browser_that_is_killed_and_opened_again_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page is opened by the user, at an address that stays the same."""
    fetch_or_skip()
    monkeypatch.setenv("HWNAS_CACHE", str(shared_cache(tmp_path)))
    spec, port = device("litert"), free_port()
    plan = plan_for(spec, tmp_path / "plan", rounds=60)
    waiting = threading.Thread(
        target=run, args=(build(Config(opened_by="user", port=port), spec), plan), daemon=True
    )
    waiting.start()
    token = tmp_path / "cache" / "web" / "token"
    while not (token.is_file() and token.read_text()):
        time.sleep(0.05)
    url = f"http://127.0.0.1:{port}/{token.read_text()}/"
    with opened(url):
        while not plan.results.is_file() or len(read_jsonl(plan.results)) < 4:
            time.sleep(0.05)
    n_before = len(read_jsonl(plan.results))
    with opened(url):
        waiting.join(120)
    assert not waiting.is_alive()
    turns = [tuple(t[:2]) for line in read_jsonl(plan.results) for t in line.get("turns", ())]
    assert len(turns) == len(set(turns)) == 60 * 3 and len(read_jsonl(plan.results)) > n_before


def test_a_table_of_a_browser_is_exact(tmp_path: Path) -> None:
    """The error of its estimates is at most 2 %, or the repeat noise and 1 %."""
    fetch_or_skip()
    table = hwnas.profile(
        "browser",
        "mobilenet_tiny",
        **SPACE,
        num_classes=10,
        out=tmp_path / "browser.json",
        profile_settings={"time_budget_s": 120},
    )
    (correction,) = table.corrections.values()
    quality = correction.validation
    assert quality.repeat_mape is not None
    assert quality.forecast.mape <= max(0.02, quality.repeat_mape + 0.01)
    assert quality.forecast.kendall_tau is not None and quality.forecast.kendall_tau >= 0.97


def test_a_run_treats_it_as_any_device(tmp_path: Path) -> None:
    """Profile, search, export and verify; the winner is timed in the page again."""
    fetch_or_skip()
    result = hwnas.run(
        str(HERE / "mini.yaml"),
        folder=tmp_path / "run",
        settings={"devices": ["browser"], "search.constraints": []},
    )
    assert result is not None
    manifest = json.loads(next((tmp_path / "run" / "bundles").rglob("manifest.json")).read_text())
    (fact,) = [f for f in manifest["latency"] if f["forecast_ms"]]
    assert fact["device"]["transport"] == "browser" and fact["measured_ms"] > 0
    assert fact["model"] == "model.tflite"


def fetch_or_skip() -> None:
    try:
        fetch_runtime("litert")
    except UserError as error:
        pytest.skip(f"no LiteRT.js: {error}")


def shared_cache(folder: Path) -> Path:
    """A cache with a token of its own, and the runtimes of the usual one."""
    place = folder / "cache" / "web"
    shutil.copytree(fetch_runtime("litert"), place / fetch_runtime("litert").name)
    return folder / "cache"


class opened:
    """A Chromium at an address, killed at the end."""

    def __init__(self, url: str) -> None:
        self.url = url

    def __enter__(self) -> None:
        self.folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        command = [
            *(str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu"),
            *("--disable-dev-shm-usage", f"--user-data-dir={self.folder.name}", self.url),
        ]
        self.process = subprocess.Popen(command, stdout=-3, stderr=-3, start_new_session=True)

    def __exit__(self, *_: object) -> None:
        import os
        import signal

        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.folder.cleanup()
