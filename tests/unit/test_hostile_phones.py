"""Phones that answer garbage, folders of others on them, and two commands at one phone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from hwnas.core.errors import UserError
from hwnas.devices import reach
from hwnas.devices.adb_phone import Phone as Reached
from hwnas.devices.carried import carried_runtime
from hwnas.devices.spec import load_device, load_transport
from hwnas.interfaces import CleaningTransport, ReachedTransport, TryingTransport
from hwnas.latency.plan import write_plan
from hwnas.latency.samples import read_samples
from hwnas.latency.sections import ProfileConfig
from tests.boards import Phone, fake_arm64_phone
from tests.unit.test_devices_adb import Acts, opened, run, settings

ODD_NAMES = ("pixel 7; touch pwned", "$(touch pwned)", "-s", "'\"", "téléphone", "a\nb")


@pytest.fixture
def phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Phone:
    return fake_arm64_phone(tmp_path, monkeypatch, look_s=0.02)


def answering(phone: Phone, devices: str) -> Reached:
    """A phone whose adb prints this list."""
    (phone.folder.parent / "bin" / "adb").write_text(f"#!/bin/sh\nprintf '{devices}'\n")
    return Reached(None, as_root=False)


@pytest.mark.parametrize(
    "devices",
    [
        "* daemon not running; starting now at tcp:5037\n* daemon started successfully\n"
        "List of devices attached\nR58M12\tdevice\n\n",
        "List of devices attached\nadb-R58M12 (2)._adb-tls-connect._tcp\tdevice\n",
        "adb server version (40) is not this one (41)\r\nList of devices attached\r\nA\tdevice\r\n",
    ],
)
def test_lists_of_devices_are_read(devices: str, phone: Phone) -> None:
    answering(phone, devices).wait(0)


@pytest.mark.parametrize("devices", ["", "\\0\\377\\n\\n", "List of devices attached\n\t\n", "{}"])
def test_a_list_of_garbage_has_no_phone(devices: str, phone: Phone) -> None:
    with pytest.raises(UserError, match="cannot reach the device"):
        answering(phone, devices).wait(0)


@pytest.mark.parametrize("serial", ["2081345678", "0123456789", "12:34:56", "1e10", "0x12"])
def test_a_serial_that_yaml_takes_for_a_number_is_explained(serial: str, tmp_path: Path) -> None:
    (tmp_path / "phone.yaml").write_text(
        f"schema_version: 1\ntransport:\n  name: adb\n  serial: {serial}\n"
    )
    try:
        load_device(str(tmp_path / "phone.yaml"))
    except UserError as error:
        assert "serial" in str(error) and "quotes" in str(error)


@pytest.mark.parametrize("serial", ["-s", "--help", "", " ", "a\nb", "a;\x1b[2J"])
def test_a_serial_is_no_option(serial: str, phone: Phone, tmp_path: Path) -> None:
    (tmp_path / "phone.yaml").write_text(json.dumps(settings(phone, serial=serial)))
    with pytest.raises(UserError, match="serial"):
        load_device(str(tmp_path / "phone.yaml"))


def test_odd_names_of_devices_do_no_harm(phone: Phone, tmp_path: Path) -> None:
    """The name is that of the file; what runs on the phone does not contain it."""
    for name in ODD_NAMES:
        path = tmp_path / f"{name}.yaml"
        path.write_text(json.dumps(settings(phone)))
        try:
            device = load_device(str(path))
        except UserError as error:
            assert "name" in str(error)
        else:
            plan = write_plan({"m": b"m"}, device, tmp_path / "plan", ProfileConfig(), seed=0)
            assert name not in str(plan.results) and name not in plan.path.read_text()


@pytest.mark.parametrize(
    "said",
    ["²  ²\ntaskset", "99999999999999 1024\n0 1\ntaskset", "0 -1\ntaskset", "\x1b[2J\n\0", "0 1 2"],
)
def test_processors_of_garbage_are_none(said: str, phone: Phone) -> None:
    phone.program("cat", f"printf '{said}\n'")
    (phone.folder.parent / "bin" / "adb").write_text(f"#!/bin/sh\nprintf '{said}\n'\n")
    assert Reached(None, as_root=False).fast_mask(1) == ""


def test_progress_of_garbage_is_shown_as_text(
    phone: Phone, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    transport, plan = opened(phone, tmp_path)
    run(transport, plan)
    (runtime,) = (phone.folder / "hwnas-kit").glob("runtime-*")
    lines = (
        '{"done": 1e999, "total": 1, "note": "x"}',
        '{"done": 5, "total": 0, "note": "x"}',
        '{"done": -1, "total": -1, "note": ["x"]}',
        "{" * 100_000,
        "[" * 100_000,
        '{"done": 1, "total": 2, "note": "\\u001b[2J"}',
        "bench.py: note: \x1b[2Jowned",
    )
    (runtime / "lines").write_text("\n".join(lines) + "\n")
    (runtime / "python3").write_text('cat "${0%/*}/lines" >&2\nexit 7\n')
    plan.results.unlink()
    with pytest.raises(UserError, match="exit status 7") as caught:
        run(transport, plan, Acts("", None))
    assert "\x1b" not in str(caught.value) and "\x1b" not in caplog.text


def test_a_line_without_an_end_is_not_kept(phone: Phone, tmp_path: Path) -> None:
    transport, plan = opened(phone, tmp_path)
    run(transport, plan)
    (runtime,) = (phone.folder / "hwnas-kit").glob("runtime-*")
    (runtime / "python3").write_text("head -c 3000000 /dev/zero | tr '\\0' x >&2\nexit 7\n")
    with pytest.raises(UserError, match="exit status 7") as caught:
        run(transport, plan)
    assert len(str(caught.value)) < 100_000


@pytest.mark.parametrize("file", ["plan.json", "models"])
def test_files_that_were_changed_on_the_phone_are_copied_again(
    file: str, phone: Phone, tmp_path: Path
) -> None:
    transport, plan = opened(phone, tmp_path)
    run(transport, plan)
    (there,) = (phone.folder / "hwnas-kit").glob("results-*")
    (there / "results.jsonl").unlink()
    plan.results.unlink()
    if file == "models":
        for model in (there / "models").iterdir():
            model.write_bytes(b"no model")
    else:
        (there / file).write_text('{"schema_version": 1}')
    with pytest.raises(UserError, match="copies models and kit again"):
        run(transport, plan)
    run(transport, plan)
    read_samples(plan)


HOLDS = """
import sys
from hwnas.devices.adb_phone import Phone
from hwnas.devices.reach import alone
with alone(Phone(None, as_root=False)):
    print("holds", flush=True)
    sys.stdin.read()
"""


def test_a_second_command_does_not_disturb_the_first(phone: Phone, tmp_path: Path) -> None:
    """Also if it has another name for the phone."""
    transport, plan = opened(phone, tmp_path, serial="FAKE123")
    first = subprocess.Popen([sys.executable, "-c", HOLDS], stdin=-1, stdout=-1, text=True)
    try:
        assert first.stdout is not None and first.stdout.readline() == "holds\n"
        assert isinstance(transport, TryingTransport)
        for act in (lambda: run(transport, plan), lambda: transport.try_out(plan.path)):
            with pytest.raises(UserError, match=r"(?s)another command times adb FAKE123.*pid"):
                act()
        assert not (phone.folder / "hwnas-kit").exists()
    finally:
        first.communicate("", timeout=30)
    run(transport, plan)
    read_samples(plan)


def test_a_phone_without_a_folder_is_asked_for_it_before_the_cable(
    phone: Phone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HWNAS_CACHE", str(tmp_path / "empty"))
    phone.connect()
    transport, _ = opened(phone, tmp_path, wait_s=600)
    assert isinstance(transport, ReachedTransport)
    done = threading.Event()

    def check() -> None:
        with pytest.raises(UserError, match="--fetch"):
            transport.check()
        done.set()

    threading.Thread(target=check, daemon=True).start()
    assert done.wait(30)


def test_an_empty_serial_of_the_environment_chooses_no_phone(
    phone: Phone, monkeypatch: pytest.MonkeyPatch
) -> None:
    phone.connect(R58M12="device", FAKE123="device")
    monkeypatch.setenv("ANDROID_SERIAL", "")
    with pytest.raises(UserError, match="several phones or emulators"):
        Reached(None, as_root=False).wait(0)


@pytest.mark.parametrize("stream", ["", ">&2"])
def test_an_answer_without_an_end_is_not_kept(
    stream: str, phone: Phone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reach, "MOST_BYTES", 1 << 16)
    phone.program("uname", f"exec yes {stream}")
    transport, plan = opened(phone, tmp_path)
    with pytest.raises(UserError, match="is too long") as caught:
        run(transport, plan)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("script", ["sleep 60", "sleep 60 &"])
def test_a_phone_that_says_nothing_is_given_up(
    script: str, phone: Phone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if a child of adb keeps its output open."""
    monkeypatch.setattr(reach, "CALL_TIMEOUT_S", 0.2)
    answering(phone, "")
    (phone.folder.parent / "bin" / "adb").write_text(f"#!/bin/sh\n{script}\n")
    with pytest.raises(
        UserError,
        match=r"did not finish[\s\S]*expected: an end within[\s\S]*found: still running: adb",
    ):
        Reached(None, as_root=False).wait(0)


@pytest.mark.parametrize("script", ["no program", "#!/bin\n"])
def test_an_adb_that_does_not_start_is_explained(
    script: str, phone: Phone, monkeypatch: pytest.MonkeyPatch
) -> None:
    adb_file = phone.folder.parent / "bin" / "adb"
    adb_file.write_text(script)
    monkeypatch.setenv("PATH", str(adb_file.parent))
    with pytest.raises(
        UserError, match=r"cannot run adb[\s\S]*fix: install adb again, or correct its"
    ):
        Reached(None, as_root=False).wait(0)


def test_another_phone_does_not_continue_the_timing(phone: Phone, tmp_path: Path) -> None:
    """A phone that is connected in addition changes nothing, and one in its place is not used."""
    phone.connect(FAKE123="device")
    transport, plan = opened(phone, tmp_path, wait_s=0.2, rounds=20)
    run(transport, plan, Acts("timing", lambda: phone.connect(FAKE123="device", B="device")))
    read_samples(plan)
    phone.connect(FAKE123="device")
    other, plan = opened(phone, tmp_path, wait_s=0.2, rounds=1000, time_budget_s=60)

    def swap() -> None:
        phone.connect(B="device")
        for kit in (phone.folder / "hwnas-kit").glob("*/pid"):
            os.kill(int(kit.read_text()), signal.SIGKILL)

    with pytest.raises(UserError):
        run(other, plan, Acts("timing", swap))
    assert {call[1] for call in phone.calls() if call[0] == "-s"} == {"FAKE123"}


def test_folders_of_others_do_not_prevent_a_removal(phone: Phone, tmp_path: Path) -> None:
    transport, plan = opened(phone, tmp_path)
    run(transport, plan)
    kits = phone.folder / "hwnas-kit"
    theirs = ["results-old", "runtime-a b", "results-0123456789abcdef0", "results-a\ntry 4 0 0 no"]
    for name in theirs:
        (kits / name).mkdir()
    half = kits / "runtime-0123456789abcdef.tar"
    half.write_bytes(b"a part of a runtime")
    assert isinstance(transport, CleaningTransport)
    found = transport.leftovers({plan.results.stem: plan.results.stat().st_size})
    assert f"{half.parent.name}/{half.name}" in " ".join(one.where for one in found)
    for one in found:
        one.remove()
    assert sorted(path.name for path in kits.iterdir()) == sorted(theirs)


def test_a_full_phone_keeps_no_part_of_a_runtime(phone: Phone, tmp_path: Path) -> None:
    (phone.folder / "full").touch()
    transport, plan = opened(phone, tmp_path)
    with pytest.raises(UserError, match="disk of the device is full"):
        run(transport, plan)
    assert not list((phone.folder / "hwnas-kit").iterdir())


def test_a_phone_that_fills_up_keeps_no_archive_of_models(phone: Phone, tmp_path: Path) -> None:
    """The runtime is there already; the models no longer fit. The same command goes on later."""
    transport, plan = opened(phone, tmp_path)
    run(transport, plan)
    full = phone.folder / "full"
    full.touch()
    other, plan = opened(phone, tmp_path, rounds=4)
    with pytest.raises(UserError, match="disk of the device is full"):
        run(other, plan)
    assert not list(phone.folder.rglob("*.tar"))
    full.unlink()
    run(other, plan)
    read_samples(plan)


@pytest.mark.parametrize("runner", ["kit", "benchmark_model"])
def test_what_is_missing_here_is_said_before_a_phone_is_waited_for(
    runner: str, phone: Phone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`hwnas profile` times without a check before; two minutes are too long for this."""
    monkeypatch.setenv("HWNAS_CACHE", str(tmp_path / "empty"))
    phone.connect()
    changes = {"runner": runner, "binary": "gone"} if runner != "kit" else {}
    path = tmp_path / "phone.yaml"
    content = settings(phone, wait_s=600, **changes) | {"runtime": "litert", "provider": "cpu"}
    path.write_text(json.dumps(content))
    plan = write_plan({"m": b"m"}, load_device(str(path)), tmp_path, ProfileConfig(), seed=0)
    transport = load_transport(str(path))
    assert isinstance(transport, TryingTransport)
    begin = time.monotonic()
    for act in (lambda: run(transport, plan), lambda: transport.try_out(plan.path)):
        with pytest.raises(UserError, match=r"in the cache|of benchmark_model is missing"):
            act()
    assert time.monotonic() - begin < 60 and not (phone.folder / "calls").exists()


@pytest.mark.parametrize("change", ["exit 3", "gone"])
def test_a_damaged_runtime_is_copied_again(change: str, phone: Phone, tmp_path: Path) -> None:
    transport, plan = opened(phone, tmp_path)
    run(transport, plan)
    (runtime,) = (phone.folder / "hwnas-kit").glob("runtime-*")
    if change == "gone":
        (runtime / "quick.py").unlink()  # any of its files
    else:
        (runtime / "python3").write_text(change)
    for path in [plan.results, *phone.folder.rglob("results.jsonl")]:
        path.unlink()
    for path in phone.folder.rglob("installed-*"):
        path.unlink()
    with pytest.raises(UserError, match="repeat the command"):
        run(transport, plan)
    run(transport, plan)
    read_samples(plan)


@pytest.mark.parametrize("content", [b"garbage", b"", None])
def test_a_damaged_runtime_in_the_cache_is_not_copied(
    content: bytes | None, phone: Phone, tmp_path: Path
) -> None:
    carried = carried_runtime("arm64", "onnxruntime")
    whole = carried.path.read_bytes()
    carried.path.write_bytes(whole[:700] if content is None else content)
    transport, plan = opened(phone, tmp_path)
    for act in (lambda: run(transport, plan), lambda: list(carried.members())):
        with pytest.raises(UserError, match=r"(?s)damaged.*--fetch"):
            act()
