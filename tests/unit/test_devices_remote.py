"""Boards over ssh and phones over adb: what travels, and what survives an interruption."""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hwnas.builders.onnx import context
from hwnas.cli.main import _Stopped
from hwnas.core.errors import UserError
from hwnas.core.progress import silent
from hwnas.core.store import read_jsonl
from hwnas.devices.carried import MACHINES
from hwnas.devices.runtimes import install_line
from hwnas.devices.spec import load_device, load_transport
from hwnas.interfaces import TryingTransport
from hwnas.latency.plan import Plan, write_plan
from hwnas.latency.samples import read_samples
from hwnas.latency.sections import ProfileConfig
from hwnas.measure.try_device import try_device
from hwnas.spaces.space import SearchSpace
from tests.boards import Phone, Sshd, fake_phone, imitate_carried, loopback_sshd

MODELS = {f"c{hw}": context(8, hw).SerializeToString() for hw in (4, 16)}


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with loopback_sshd(tmp_path_factory.mktemp("sshd")) as running:
        yield running


@pytest.fixture
def server(sshd: Sshd, tmp_path: Path) -> Sshd:
    """With an empty folder on the board."""
    return replace(sshd, settings=sshd.settings | {"folder": str(tmp_path / "board")})


@pytest.fixture
def phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Phone:
    return fake_phone(tmp_path / "adb", monkeypatch)


def device_file(folder: Path, settings: dict[str, object], **changes: object) -> str:
    path = folder / "board.yaml"
    path.write_text(json.dumps({"schema_version": 1, "transport": settings | changes}))
    return str(path)


def plan_for(name: str, folder: Path, *, time_budget_s: float = 60.0, rounds: int = 3) -> Plan:
    config = ProfileConfig(
        rounds=rounds, min_rounds=1, hot_samples=2, time_budget_s=time_budget_s, target_error=0.0
    )
    return write_plan(MODELS, load_device(name), folder / "plan", config, seed=0)


def turns(path: Path) -> list[tuple[int, int]]:
    lines = read_jsonl(path)
    return [(turn[0], turn[1]) for line in lines for turn in line.get("turns", ())]


class Disturbance:
    """A Progress that does something once timing has begun."""

    def __init__(self, act) -> None:
        self.act, self.is_done = act, False

    def __call__(self, done: int, total: int, note: str = "") -> None:
        if note == "timing" and not self.is_done:
            self.is_done = True
            self.act()


def interrupt() -> None:
    raise KeyboardInterrupt


def stop() -> None:
    """As a signal arrives in a command."""
    raise _Stopped(signal.SIGINT)


def test_a_board_gets_models_and_kit_once(server: Sshd, tmp_path: Path):
    """Its interpreter is found by what `before` prepares."""
    python = Path(str(server.settings["python"]))
    prepared = {"before": f"PREPARED='{python.parent}'", "python": f'"$PREPARED/{python.name}"'}
    name = device_file(tmp_path, server.settings, **prepared)
    plan, transport = plan_for(name, tmp_path), load_transport(name)
    transport.run_bench(plan.path, plan.results, progress=silent)
    (there,) = (tmp_path / "board").iterdir()
    files = {str(path.relative_to(there)) for path in there.rglob("*.*") if path.is_file()}
    assert {"bench.py", "run_onnxruntime.py", "models/c4.onnx", "plan.json"} <= files
    assert not any("hwnas" in name or name.endswith(".tar") for name in files)
    stamp = (there / "bench.py").stat().st_mtime_ns, (there / "bench.py").stat().st_ino
    transport.run_bench(plan.path, plan.results, progress=silent)
    assert stamp == ((there / "bench.py").stat().st_mtime_ns, (there / "bench.py").stat().st_ino)
    before = plan.results.read_bytes()
    assert (there / "results.jsonl").read_bytes() == before
    shutil.rmtree(there)  # a wiped board is given its samples back
    transport.run_bench(plan.path, plan.results, progress=silent)
    assert plan.results.read_bytes() == before


def test_interrupts_and_lost_connections_cost_no_samples(server: Sshd, tmp_path: Path):
    name = device_file(tmp_path, server.settings)
    plan, transport = plan_for(name, tmp_path, rounds=1_000_000), load_transport(name)
    with pytest.raises(KeyboardInterrupt):
        transport.run_bench(plan.path, plan.results, progress=Disturbance(interrupt))
    first = turns(plan.results)
    assert first
    (there,) = (tmp_path / "board").iterdir()
    size = (there / "results.jsonl").stat().st_size
    time.sleep(1.5)
    assert (there / "results.jsonl").stat().st_size == size, "the kit still runs on the board"

    with pytest.raises(UserError, match="lost the connection") as caught:
        transport.run_bench(plan.path, plan.results, progress=Disturbance(server.sever))
    assert "run the same command again to resume" in str(caught.value)
    second = turns(plan.results)
    assert len(second) > len(first), "the server was still up, so the samples are fetched"

    spent_s = sum(line.get("seconds", 0) for line in read_jsonl(plan.results))
    again = plan_for(name, tmp_path, time_budget_s=spent_s + 1.0, rounds=1_000_000)
    assert again.hash == plan.hash
    transport.run_bench(again.path, again.results, progress=silent)
    third = turns(plan.results)
    assert first == second[: len(first)] and second == third[: len(second)]
    read_samples(again)  # refuses turns that occur twice


def test_a_signal_to_the_command_stops_the_board_and_brings_its_samples_home(
    server: Sshd, tmp_path: Path
):
    """The command line turns SIGINT, SIGTERM and SIGHUP into an exception of its own."""
    name = device_file(tmp_path, server.settings)
    plan, transport = plan_for(name, tmp_path, rounds=1_000_000), load_transport(name)
    with pytest.raises(_Stopped):
        transport.run_bench(plan.path, plan.results, progress=Disturbance(stop))
    (there,) = (tmp_path / "board").iterdir()
    assert turns(plan.results)
    assert plan.results.read_bytes() == (there / "results.jsonl").read_bytes()
    assert not (there / "pid").exists()


def test_a_board_out_of_reach_is_explained(server: Sshd, tmp_path: Path):
    (tmp_path / "nobody").write_text("")
    for changes, word in (
        ({"known_hosts": str(tmp_path / "nobody")}, "verification failed"),
        ({"port": 1}, "refused"),
    ):
        name = device_file(tmp_path, server.settings, **changes)
        plan = plan_for(name, tmp_path)
        with pytest.raises(UserError, match=word) as caught:
            load_transport(name).run_bench(plan.path, plan.results, progress=silent)
        assert "cannot reach the device" in str(caught.value)
        with pytest.raises(UserError, match=word):
            load_transport(name).check()
    load_transport(device_file(tmp_path, server.settings)).check()


def test_a_board_without_python_gets_one(
    server: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Once, if it has the architecture of the folder; here, the folder starts this Python."""
    imitate_carried(tmp_path / "cache", monkeypatch)
    settings = {key: value for key, value in server.settings.items() if key != "python"}
    name = device_file(tmp_path, settings, with_runtime="arm64")
    plan, transport = plan_for(name, tmp_path), load_transport(name)
    monkeypatch.setitem(MACHINES, "arm64", ("another",))
    with pytest.raises(UserError, match=r"(?s)not an arm64 machine.*another"):
        transport.run_bench(plan.path, plan.results, progress=silent)
    monkeypatch.setitem(MACHINES, "arm64", (platform.machine(),))
    transport.run_bench(plan.path, plan.results, progress=silent)
    assert turns(plan.results)
    names = sorted(path.name.partition("-")[0] for path in (tmp_path / "board").iterdir())
    assert names == ["results", "runtime"]


def test_keys_are_named_relative_to_the_file_of_the_board(
    server: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Wherever the command runs, and whatever characters the folder's name has."""
    folder = tmp_path / 'it\'s "my" 50% folder'
    (folder / "keys").mkdir(parents=True)
    for key in ("identity", "known_hosts"):
        copy = shutil.copy(str(server.settings[key]), folder / "keys" / key)
        Path(copy).chmod(0o600)
    relative = {"identity": "keys/identity", "known_hosts": "keys/known_hosts"}
    name = device_file(folder, server.settings, **relative)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    load_transport(name).check()
    monkeypatch.chdir(folder)
    load_transport("board.yaml").check()
    copy = shutil.copy(name, tmp_path / "elsewhere")
    load_transport(copy, beside=folder).check()
    with pytest.raises(UserError, match="cannot reach the device"):
        load_transport(copy).check()


@pytest.mark.parametrize(
    "settings",
    [
        {"name": "ssh"},
        {"name": "ssh", "host": "-oProxyCommand=reboot"},
        {"name": "ssh", "host": "board", "user": "-lroot"},
        {"name": "ssh", "host": "board", "port": 0},
        {"name": "ssh", "host": "board", "folder": "x; rm -rf ~"},
        {"name": "ssh", "host": "board", "hots": 1},
        {"name": "adb", "serial": "-s x"},
        {"name": "adb", "folder": "$(reboot)"},
    ],
)
def test_settings_that_are_wrong_or_would_be_options_are_refused(settings, tmp_path: Path):
    with pytest.raises(UserError):
        load_device(device_file(tmp_path, settings))


# --- adb ------------------------------------------------------------------------------------------


def test_a_phone_is_called_by_its_serial_and_gets_the_kit_once(phone: Phone, tmp_path: Path):
    name = device_file(tmp_path, phone.settings)
    plan, transport = plan_for(name, tmp_path), load_transport(name)
    transport.run_bench(plan.path, plan.results, progress=silent)
    transport.run_bench(plan.path, plan.results, progress=silent)
    calls = phone.calls()
    assert all(call[:2] == ["-s", "FAKE123"] for call in calls)
    verbs = [call[2] for call in calls]
    assert verbs.count("push") == 1 and verbs.count("pull") == 2
    timing = [call[3] for call in calls if call[2] == "shell" and "--out results.jsonl" in call[3]]
    assert len(timing) == 2 and f"cd hwnas-kit/{plan.results.stem}" in timing[0]
    assert "OMP_NUM_THREADS=1" in timing[0]


def test_a_rooted_phone_is_commanded_through_su(phone: Phone, tmp_path: Path):
    su = Path(shutil.which("adb") or "").with_name("su")
    su.write_text('#!/bin/sh\n[ "$1" = -c ] && exec sh -c "$2"\n')
    su.chmod(0o755)
    name = device_file(tmp_path, phone.settings, as_root=True, before="export X='a b'")
    plan = plan_for(name, tmp_path)
    load_transport(name).run_bench(plan.path, plan.results, progress=silent)
    assert turns(plan.results)
    assert all(call[3].startswith("su -c '") for call in phone.calls() if call[2] == "shell")


def test_an_unplugged_phone_is_a_lost_connection(phone: Phone, tmp_path: Path):
    """The cable is pulled while it times: adb fails, and goes on failing."""
    name = device_file(tmp_path, phone.settings)
    plan, transport = plan_for(name, tmp_path, rounds=1_000_000), load_transport(name)
    plug = phone.folder / "unplugged"

    def unplug() -> None:
        plug.touch()
        (pid,) = phone.folder.rglob("pid")
        os.kill(int(pid.read_text()), signal.SIGKILL)

    with pytest.raises(UserError, match="lost the connection"):
        transport.run_bench(plan.path, plan.results, progress=Disturbance(unplug))
    assert not turns(plan.results)
    with pytest.raises(UserError, match="not in the list"):
        transport.run_bench(plan.path, plan.results, progress=silent)
    plug.unlink()
    there = next(phone.folder.rglob("results.jsonl"))
    kept = [line for line in there.read_text().splitlines() if '"seconds"' in line]
    spent_s = sum(json.loads(line)["seconds"] for line in kept)
    again = plan_for(name, tmp_path, time_budget_s=spent_s + 0.3, rounds=1_000_000)
    transport.run_bench(again.path, again.results, progress=silent)
    assert plan.results.read_text().splitlines()[1 : 1 + len(kept)] == kept


# --- before anything is timed ---------------------------------------------------------------------


def refusal(phone: Phone, folder: Path, space: SearchSpace, **changes: object) -> UserError:
    """What a phone is refused for when it is tried; no samples are left."""
    device = {key: changes.pop(key) for key in ("provider", "runtime") if key in changes}
    path = folder / "board.yaml"
    path.write_text(
        json.dumps({"schema_version": 1, "transport": phone.settings | changes} | device)
    )
    transport = load_transport(str(path))
    assert isinstance(transport, TryingTransport)
    with pytest.raises(UserError) as caught:
        try_device(space, load_device(str(path)), transport, seed=0)
    assert not list(phone.folder.rglob("results*"))
    return caught.value


def test_a_board_without_numpy_is_told_the_line_to_run_there(
    phone: Phone, tmp_path: Path, tiny_space: SearchSpace
):
    bare = f"{sys.executable} -S"  # an interpreter without what is installed beside it
    for runtime in ("onnxruntime", "litert"):
        error = refusal(
            phone, tmp_path, tiny_space, python=bare, before="export X=1", runtime=runtime
        )
        line = install_line(runtime).removeprefix("python")
        assert error.fix == f"on the device: export X=1 && {bare}{line}"
        assert "No module named 'numpy'" in str(error) and "FAKE123" in str(error)


def test_a_board_without_the_provider_or_with_an_old_runtime_is_refused(
    phone: Phone, tmp_path: Path, tiny_space: SearchSpace
):
    error = refusal(phone, tmp_path, tiny_space, provider="TpuExecutionProvider")
    assert "no TpuExecutionProvider" in str(error)
    old = tmp_path / "old" / "onnxruntime.py"
    old.parent.mkdir()
    old.write_text(OLD_RUNTIME)
    error = refusal(
        phone, tmp_path, tiny_space, before=f"PYTHONPATH={old.parent}; export PYTHONPATH"
    )
    assert "Unsupported model IR version" in str(error) and "upgrade" in str(error.fix)


OLD_RUNTIME = """
__version__ = "1.2.0"
get_available_providers = lambda: ["CPUExecutionProvider"]
set_default_logger_severity = lambda level: None
class SessionOptions:
    add_session_config_entry = add_free_dimension_override_by_name = lambda *words: None
class ExecutionMode: ORT_SEQUENTIAL = 0
class GraphOptimizationLevel: ORT_ENABLE_ALL = 99
def InferenceSession(path, options, providers):
    raise RuntimeError("Unsupported model IR version: 8, max supported IR version: 6")
"""


def test_a_board_that_is_whole_is_tried_again_and_again(
    phone: Phone, tmp_path: Path, tiny_space: SearchSpace
):
    name = device_file(tmp_path, phone.settings)
    transport = load_transport(name)
    assert isinstance(transport, TryingTransport)
    for _ in range(2):
        try_device(tiny_space, load_device(name), transport, seed=0)
    assert [call[2] for call in phone.calls()].count("push") == 1
    assert not list(phone.folder.rglob("results*"))
