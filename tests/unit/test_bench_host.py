"""The host of the kit: quotas and threads, which processors it chooses, its facts."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from hwnas.builders.onnx import context
from hwnas.core.store import read_json, read_jsonl
from hwnas.interfaces import DeviceSpec
from hwnas.latency.plan import Plan, write_plan
from hwnas.latency.sections import ProfileConfig
from tests.kit import HOST, KIT


def plan_in(folder: Path, *, threads: int = 1, **settings: Any) -> Plan:
    config = ProfileConfig(rounds=2, min_rounds=1, hot_samples=4, **settings)
    models = {"c8": context(8, 8).SerializeToString()}
    return write_plan(models, DeviceSpec("local", threads=threads), folder, config, seed=0)


def run(plan: Plan, *before: str) -> tuple[int, str]:
    """Exit status of the kit, and what it says. before: arguments of Python before its file."""
    command = [sys.executable, *before, str(KIT), str(plan.path), "--out", str(plan.results)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stderr


@pytest.fixture
def host() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_host", KIT.with_name("bench_host.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="pinning needs Linux and two processors",
)
def test_the_kit_pins_itself_to_as_many_processors_as_threads(tmp_path: Path):
    plan = plan_in(tmp_path)
    assert run(plan)[0] == 0
    affinity = read_jsonl(plan.results)[0]["host"]["affinity"]
    assert len(affinity) == 1 and affinity[0] in os.sched_getaffinity(0)


V2, NESTED = "0::/\n", "0::/system.slice/job.service\n"
V1 = "5:cpuset:/\n4:cpu,cpuacct:/docker/7f\n1:name=systemd:/docker/7f\n"


@pytest.mark.parametrize(
    ("cgroup", "files", "quota"),
    [
        (V2, {}, np.inf),
        (V2, {"cpu.max": "max 100000\n"}, np.inf),
        (V2, {"cpu.max": "300000 100000\n"}, 3),
        (V2, {"cpu.max": "150000 100000\n"}, 1.5),
        (V2, {"cpu.max": "20000 100000\n"}, 0.2),
        (V2, {"cpu.max": "nonsense"}, np.inf),
        (V2, {"cpu.max": "0 0"}, np.inf),
        (V2, {"other/cpu.max": "100000 100000"}, np.inf),
        ("", {"cpu.max": "200000 100000\n"}, 2),
        ("", {"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        (NESTED, {"system.slice/job.service/cpu.max": "200000 100000\n"}, 2),
        (
            NESTED,
            {
                "system.slice/cpu.max": "150000 100000\n",
                "system.slice/job.service/cpu.max": "400000 100000\n",
            },
            1.5,
        ),
        ("0::/../../kubepods\n", {"kubepods/cpu.max": "300000 100000\n"}, 3),
        (V1, {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, np.inf),
        (V1, {"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        (
            V1,
            {
                "cpu,cpuacct/docker/7f/cpu.cfs_quota_us": "250000\n",
                "cpu,cpuacct/docker/7f/cpu.cfs_period_us": "100000\n",
            },
            2.5,
        ),
        ("5:cpuset:/\n", {"cpuset/cpu.cfs_quota_us": "1\n", "cpu.max": "1 1"}, np.inf),
        (V1 + "0::/\n", {"unified/cpu.max": "100000 100000"}, 1),
    ],
)
def test_more_threads_than_processors_are_told(host, cgroup, files, quota, tmp_path, monkeypatch):
    """Eight processors, of which the affinity allows four."""
    (tmp_path / "own").write_text(cgroup)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(host, "CGROUP", tmp_path)
    monkeypatch.setattr(host, "OWN_CGROUPS", tmp_path / "own")
    monkeypatch.setattr(host.os, "cpu_count", lambda: 8)
    monkeypatch.setattr(host.os, "sched_getaffinity", lambda pid: set(range(4)), raising=False)
    assert host.quota() == quota
    usable = host.usable_processors()
    assert usable == max(1, int(min(4, quota)))
    assert host.too_many(usable) == ""
    assert host.too_many(usable + 1).startswith(
        f"{usable + 1} threads, but this process may use {min(4, quota):g} of 8 processors"
    )
    assert ("pauses again and again" in host.uneven(1)) is (quota < 1)


MANY = (os.cpu_count() or 1) + 1
TOO_MANY = f"{MANY} threads, but this process may use"


def test_the_kit_refuses_more_threads_than_processors(tmp_path: Path):
    plan = plan_in(tmp_path, threads=MANY)
    status, said = run(plan)
    assert status == 1 and not plan.results.exists()
    assert said.startswith(f"bench.py: {TOO_MANY}") and "fix: set `threads`" in said


def test_forced_threads_are_timed_with_a_note(tmp_path: Path):
    plan = plan_in(tmp_path, threads=MANY, force_threads=True)
    status, said = run(plan)
    assert status == 0 and plan.results.is_file()
    assert f"bench.py: note: {TOO_MANY}" in said
    assert plan.hash != plan_in(tmp_path / "b", threads=MANY).hash


@pytest.mark.parametrize("wrong", [1, "yes", None])
def test_force_threads_of_a_plan_is_true_or_false(wrong: object, tmp_path: Path):
    plan = plan_in(tmp_path, threads=MANY)
    plan.path.write_text(json.dumps(read_json(plan.path) | {"force_threads": wrong}))
    status, said = run(plan)
    assert status == 1 and "force_threads has the wrong type" in said


def topology(
    host: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    speeds: Sequence[int],
    *,
    file: str = "cpu_capacity",
    siblings: Sequence[str] = (),
    allowed: Collection[int] | None = None,
    busy: Mapping[int, int] | None = None,
) -> list[list[int]]:
    """Imitates processors; returns the list to which the chosen processors are appended."""
    for cpu, speed in enumerate(speeds):
        path = folder / f"cpu{cpu}" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{speed}\n")
    for cpu, text in enumerate(siblings):
        path = folder / f"cpu{cpu}" / "topology" / "thread_siblings_list"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    chosen: list[list[int]] = []
    usable = set(range(len(speeds)) if allowed is None else allowed)
    monkeypatch.setattr(host, "CPUS", folder)
    monkeypatch.setattr(host, "quota", lambda: float("inf"))
    monkeypatch.setattr(host, "_busy_shares", lambda: busy or {})
    monkeypatch.setattr(host.os, "sched_getaffinity", lambda pid: usable, raising=False)
    monkeypatch.setattr(
        host.os, "sched_setaffinity", lambda pid, cpus: chosen.append(list(cpus)), raising=False
    )
    return chosen


HYBRID = [5000000] * 4 + [3800000] * 4  # frequencies of two cores with two threads, and four cores
HYBRID_SIBLINGS = ["0-1", "0-1", "2-3", "2-3", "4", "5", "6", "7"]


@pytest.mark.parametrize(
    ("allowed", "threads", "expected", "warned"),
    [
        (None, 1, [2], False),
        (None, 2, [2, 0], False),
        (None, 4, [2, 0, 3, 1], False),
        (None, 5, [2, 0, 3, 1, 7], True),
        ({4, 5, 6, 7}, 2, [7, 6], False),  # only efficiency cores
        ({1, 4, 5}, 1, [1], False),
        ({1, 4, 5}, 2, [1, 5], True),
    ],
)
def test_efficiency_cores_come_last(
    host, allowed, threads, expected, warned, tmp_path, monkeypatch
) -> None:
    chosen = topology(
        host,
        monkeypatch,
        tmp_path,
        HYBRID,
        file="cpufreq/cpuinfo_max_freq",
        siblings=HYBRID_SIBLINGS,
        allowed=allowed,
    )
    host.pin(threads)
    assert chosen == [expected]
    note = host.uneven(threads)
    assert bool(note) is warned
    if warned:
        fast = sum(HYBRID[cpu] == 5000000 for cpu in expected)
        assert note.startswith(f"{threads} threads, but only {fast} of the fastest processors")


def test_single_cores_with_a_higher_boost_are_of_the_same_kind(host, tmp_path, monkeypatch):
    topology(host, monkeypatch, tmp_path, [5000, 5200, 5000, 5000])
    assert host.uneven(4) == ""


@pytest.mark.parametrize("seed", range(20))
def test_pinning_stays_inside_the_allowed_processors(host, seed, tmp_path, monkeypatch):
    """Also where faster or less busy ones are outside."""
    random = np.random.default_rng(seed)
    speeds = random.choice([0, 446, 1024], 12).tolist()
    allowed = set(random.choice(12, random.integers(2, 12), replace=False).tolist())
    busy = {cpu: int(share) for cpu, share in enumerate(random.integers(0, 10, 12))}
    chosen = topology(host, monkeypatch, tmp_path, speeds, allowed=allowed, busy=busy)
    for threads in range(1, len(allowed)):
        host.pin(threads)
        assert len(set(chosen[-1])) == threads and set(chosen[-1]) <= allowed
        left = allowed - set(chosen[-1])
        assert min(speeds[cpu] for cpu in chosen[-1]) >= max(speeds[cpu] for cpu in left)
    host.pin(len(allowed))
    assert len(chosen) == len(allowed) - 1  # all allowed ones: nothing to choose


@pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="pinning needs Linux and two processors",
)
def test_a_kit_that_may_use_one_processor_stays_on_it(tmp_path: Path):
    """On the real machine, for each processor: taskset, a container's cpuset."""
    for cpu in sorted(os.sched_getaffinity(0))[:2]:
        plan = plan_in(tmp_path / str(cpu))
        then = f"os.sched_setaffinity(0, [{cpu}]); os.execv(sys.executable, sys.argv[1:])"
        then = f"import os, sys; {then}"
        assert run(plan, "-c", then, sys.executable)[0] == 0
        assert read_jsonl(plan.results)[0]["host"]["affinity"] == [cpu]


def test_the_fastest_then_least_busy_separate_cores_are_chosen(host, tmp_path, monkeypatch):
    """Cores 0-1 are small; 2/3 and 4/5 are two hardware threads each; 2 is busy."""
    siblings = ["0", "1", "2-3", "2-3", "4-5", "4-5"]
    speeds = [446, 446, 1024, 1024, 1024, 1024]
    chosen = topology(host, monkeypatch, tmp_path, speeds, siblings=siblings, busy={2: 9})
    for threads in (1, 2, 3, 6):
        host.pin(threads)
    assert chosen == [[4], [4, 2], [4, 2, 5]]  # six of six: nothing to choose


def test_where_pinning_is_forbidden_nothing_changes(host, monkeypatch):
    def refuse(pid: int, cpus: list[int]) -> None:
        raise PermissionError

    monkeypatch.setattr(host.os, "sched_getaffinity", lambda pid: {0, 1}, raising=False)
    monkeypatch.setattr(host.os, "sched_setaffinity", refuse, raising=False)
    monkeypatch.setattr(host, "LOOK_S", 0.0)
    host.pin(1)


def test_host_facts_say_what_the_timings_depend_on(host):
    facts = host.host_facts("a GPU")
    assert facts["cpu"] and facts["accelerator"] == "a GPU" and facts["n_cpus"] >= 1
    assert set(facts) == set(HOST)
