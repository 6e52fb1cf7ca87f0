"""Which tests reach which statement: every test file runs once, with traced modules."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.mutant_code import ROOT, trace

PLUGINS = ("no:cacheprovider", "no:xdist", "no:faulthandler")
OPTIONS = ("-q", "-m", "not full", *(f"-p{name}" for name in PLUGINS))
CACHES = ("functools.cache", "lru_cache")


@dataclass
class Reach:
    """Statements (`file:line`) that the tests of one file reach, and processor seconds by test."""

    file: str
    seen: dict[str, str] = field(default_factory=dict)  # sha256 of the files that it depends on
    seconds: dict[str, float] = field(default_factory=dict)
    statements: dict[str, list[str]] = field(default_factory=dict)
    bad: list[str] = field(default_factory=list)  # fail without a change

    def is_current(self) -> bool:
        return bool(self.seen) and all(sha256(file) == sha for file, sha in self.seen.items())


class Recorder:
    """Plugin of pytest: who reaches what. What a shared fixture reaches, all its tests reach."""

    def __init__(self, reach: Reach, hits: set[str], *, is_cached: bool) -> None:
        self._reach, self._hits, self._is_cached = reach, hits, is_cached
        self._common: set[str] = set()
        self._fixtures: dict[str, set[str]] = {}

    def pytest_collection_finish(self) -> None:
        self._common = set(self._hits)

    @pytest.hookimpl(hookwrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Iterator[None]:
        before = set(self._hits)
        self._hits.clear()
        yield
        if fixturedef.scope != "function":
            self._fixtures.setdefault(fixturedef.argname, set()).update(self._hits)
        self._hits |= before

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: Any) -> Iterator[None]:
        self._hits.clear()
        start = processor_seconds()
        yield
        found = self._hits.union(
            self._common, *(self._fixtures.get(one, ()) for one in item.fixturenames)
        )
        if self._is_cached:  # a later test may use what this one computed
            self._common |= found
        self._reach.seconds[item.nodeid] = round(processor_seconds() - start, 2)
        self._reach.statements[item.nodeid] = sorted(found)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._reach.bad.append(report.nodeid)


class Chosen:
    """Plugin of pytest: runs these tests of a file, in this order."""

    def __init__(self, tests: list[str]) -> None:
        self._order = {test: number for number, test in enumerate(tests)}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if item.nodeid in self._order]
        items.sort(key=lambda item: self._order[item.nodeid])


def processor_seconds() -> float:
    return sum(os.times()[:4])


def sha256(file: str) -> str:
    path = ROOT / file
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def in_child(work: Callable[[], int], *, seconds: float = 3600) -> int | None:
    """Exit status of a silent fork that does some work; None if it takes longer.

    An error is shown and is status 1. What tests leave in their folders is removed.
    """
    scratch = tempfile.mkdtemp(prefix="mutant-")
    child = os.fork()
    if child == 0:
        os.setpgrp()
        os.environ["PYTEST_DEBUG_TEMPROOT"] = scratch
        shown, silent = os.dup(2), os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        status = 1
        try:
            status = work()
        except BaseException:
            os.write(shown, traceback.format_exc().encode())
        os._exit(status)
    end = time.monotonic() + seconds
    done = status = 0
    while not done and time.monotonic() < end:
        time.sleep(0.02)
        done, status = os.waitpid(child, os.WNOHANG)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # it, or what it has left running
    if not done:
        os.waitpid(child, 0)
    subprocess.run(["rm", "-rf", scratch], check=False)  # however deep its folders are
    return os.waitstatus_to_exitcode(status) if done else None


def _file(test_file: str, kept: Path) -> Path:
    return kept / f"{test_file.replace('/', '-')}.json"


def kept_reach(test_file: str, kept: Path) -> Reach | None:
    """What was kept of the last time, if nothing has changed since then."""
    path = _file(test_file, kept)
    reach = Reach(**json.loads(path.read_text())) if path.is_file() else None
    return reach if reach is not None and reach.is_current() else None


def reach_of(test_file: str, modules: list[str], kept: Path) -> Reach:
    """Run the tests of a file with traced modules, unless that is kept."""
    if (reach := kept_reach(test_file, kept)) is not None:
        return reach
    path = _file(test_file, kept)

    def work() -> int:
        reach, hits = Reach(test_file), set[str]()
        for module in modules:
            trace(module, hits)
        is_cached = any(one in (ROOT / test_file).read_text() for one in CACHES)
        pytest.main([test_file, *OPTIONS], [Recorder(reach, hits, is_cached=is_cached)])
        reached = {one.partition(":")[0] for found in reach.statements.values() for one in found}
        reach.seen = {file: sha256(file) for file in [test_file, *sorted(reached)]}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(vars(reach)))
        return 0

    in_child(work)
    return Reach(**json.loads(path.read_text()))
