"""Every registered transport passes the suite."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hwnas.core.config import build_model
from hwnas.core.errors import UserError
from hwnas.devices import REGISTRY
from hwnas.interfaces import Transport
from hwnas.latency.plan import Plan
from hwnas.testing import TransportSuite, load_or_skip
from hwnas.testing.devices import Execute, execute
from tests.boards import fake_phone, loopback_sshd
from tests.pages import Page, free_port, playing, web_cache


def execute_by_hand(transport: Transport, plan: Plan) -> None:
    """What the offline transport asks its user to do."""
    try:
        execute(transport, plan)
    except UserError:
        (archive,) = plan.path.parent.glob("*-kit.zip")
        there = plan.path.parent / "there"
        zipfile.ZipFile(archive).extractall(there)
        command = [sys.executable, "bench.py", "plan.json", "--out", "results.jsonl"]
        done = subprocess.run(command, cwd=there, capture_output=True, text=True, check=False)
        if done.returncode:
            raise UserError(done.stderr) from None
        shutil.copy(there / "results.jsonl", plan.results)
        execute(transport, plan)


def execute_in_a_page(transport: Transport, plan: Plan) -> None:
    """What the user of a browser does: opens the page."""
    with playing(Page(transport.config.port)):  # type: ignore[attr-defined]
        execute(transport, plan)


RUNS: dict[str, Execute] = {"offline": execute_by_hand, "browser": execute_in_a_page}


class TestTransports(TransportSuite):
    @pytest.fixture(params=[name for name in REGISTRY.names if name != "table"])  # times nothing
    def variant(self, request: pytest.FixtureRequest) -> Any:
        return load_or_skip(REGISTRY, request.param)

    @pytest.fixture
    def config(
        self, variant: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[Any]:
        """Settings that reach something: a server on loopback, an imitation of adb, a page."""
        name = variant.Config.model_fields["name"].default
        if name == "ssh":
            with loopback_sshd(tmp_path / "sshd") as server:
                yield build_model(variant.Config, server.settings, where="test")
        elif name == "adb":
            phone = fake_phone(tmp_path / "adb", monkeypatch)
            yield build_model(variant.Config, phone.settings, where="test")
        elif name == "browser":
            web_cache(tmp_path / "cache", monkeypatch)
            settings = {"opened_by": "user", "port": free_port()}
            yield build_model(variant.Config, settings, where="test")
        else:
            yield variant.Config()

    @pytest.fixture
    def run(self, variant: Any) -> Execute:
        return RUNS.get(variant.Config.model_fields["name"].default, execute)
