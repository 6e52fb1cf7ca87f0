"""A phone on a cable, with nothing installed: what is copied, waited for, and explained."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from hwnas.builders.onnx import context
from hwnas.core.errors import UserError
from hwnas.core.progress import silent
from hwnas.core.store import read_jsonl
from hwnas.devices.adb_phone import Phone as Reached
from hwnas.devices.adb_phone import fast_processors
from hwnas.devices.spec import load_device, load_transport
from hwnas.interfaces import CleaningTransport, FetchingTransport, ReachedTransport, Transport
from hwnas.latency.plan import Plan, write_plan
from hwnas.latency.samples import read_samples
from hwnas.latency.sections import ProfileConfig
from tests.boards import Phone, fake_arm64_phone

MODELS = {f"c{hw}": context(8, hw).SerializeToString() for hw in (4, 16)}
PIXEL = [160] * 4 + [498] * 2 + [1024] * 2  # a small, a middle and a big group


@pytest.fixture
def phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Phone:
    return fake_arm64_phone(tmp_path, monkeypatch)


def settings(phone: Phone, **changes: Any) -> dict[str, Any]:
    """Those of a phone without Python."""
    chosen = {"name": "adb", "folder": phone.settings["folder"], "wait_s": 0} | changes
    return {"schema_version": 1, "transport": chosen}


def opened(phone: Phone, folder: Path, **changes: Any) -> tuple[Transport, Plan]:
    """The transport, and a plan for it."""
    folder.mkdir(exist_ok=True)
    path = folder / "phone.yaml"
    limits = {key: changes.pop(key) for key in ("rounds", "time_budget_s") if key in changes}
    path.write_text(json.dumps(settings(phone, **changes)))
    shape = {"rounds": 3, "min_rounds": 1, "hot_samples": 2, "target_error": 0.0, **limits}
    plan = write_plan(
        MODELS, load_device(str(path)), folder / "plan", ProfileConfig(**shape), seed=0
    )
    return load_transport(str(path)), plan


def run(transport: Transport, plan: Plan, progress: Any = silent) -> None:
    transport.run_bench(plan.path, plan.results, progress=progress)


def verbs(phone: Phone) -> list[str]:
    return [call[2] if call[0] == "-s" else call[0] for call in phone.calls()]


class Acts:
    """A Progress that acts at the first report with a note."""

    def __init__(self, note: str, act: Any) -> None:
        self.note, self.act, self.notes = note, act, []

    def __call__(self, done: int, total: int, note: str = "") -> None:
        self.notes.append(note)
        if note == self.note and self.act is not None:
            act, self.act = self.act, None
            act()


def test_python_and_runtime_are_copied_once(phone: Phone, tmp_path: Path) -> None:
    transport, plan = opened(phone, tmp_path)
    run(transport, plan)
    assert verbs(phone).count("push") == 2  # the runtime folder; models and kit
    (runtime,) = (phone.folder / "hwnas-kit").glob("runtime-*")
    timing = next(c[-1] for c in phone.calls() if "--out results.jsonl" in c[-1])
    assert f"sh ../{runtime.name}/python3 bench.py" in timing
    other = write_plan(
        dict([*MODELS.items()][:1]),
        load_device(str(tmp_path / "phone.yaml")),
        tmp_path / "other",
        ProfileConfig(rounds=2, min_rounds=1, hot_samples=2),
        seed=0,
    )
    run(transport, other)
    assert verbs(phone).count("push") == 3, "another plan needs no other runtime"
    assert read_samples(plan).facts["runtime"] == "onnxruntime"


def test_a_half_copied_runtime_is_copied_again(phone: Phone, tmp_path: Path) -> None:
    transport, plan = opened(phone, tmp_path)
    run(transport, plan)
    (runtime,) = (phone.folder / "hwnas-kit").glob("runtime-*")
    runtime.rename(runtime.with_name(f"{runtime.name}.part"))
    run(transport, plan)
    assert verbs(phone).count("push") == 3 and (runtime / "python3").is_file()
    assert not list(runtime.parent.glob("*.part"))


def test_a_phone_of_another_architecture_is_refused(phone: Phone, tmp_path: Path) -> None:
    phone.program("uname", "echo x86_64")
    transport, plan = opened(phone, tmp_path)
    with pytest.raises(UserError, match=r"(?s)not an arm64 machine.*aarch64.*x86_64.*`python`"):
        run(transport, plan)
    assert "push" not in verbs(phone)


def test_a_runtime_that_is_not_here_is_named(
    phone: Phone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HWNAS_CACHE", str(tmp_path / "empty"))
    transport, _ = opened(phone, tmp_path)
    assert isinstance(transport, ReachedTransport) and isinstance(transport, FetchingTransport)
    with pytest.raises(UserError, match=r"(?s)no intact archive.*in the cache.*--fetch.*47 MB"):
        transport.check()


def test_two_phones_need_a_serial(
    phone: Phone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    phone.connect(R58M12="device", FAKE123="device")
    transport, plan = opened(phone, tmp_path)
    with pytest.raises(UserError, match=r"(?s)several phones.*R58M12 \(device\).*serial: R58M12"):
        run(transport, plan)
    chosen, plan = opened(phone, tmp_path, serial="FAKE123")
    run(chosen, plan)
    assert all(call[:2] == ["-s", "FAKE123"] for call in phone.calls())
    monkeypatch.setenv("ANDROID_SERIAL", "R58M12")
    assert isinstance(transport, ReachedTransport)
    with pytest.raises(UserError, match="more than one"):  # this imitation does not know it
        transport.check()


@pytest.mark.parametrize(
    ("state", "fix"),
    [("unauthorized", "allow USB debugging"), ("offline", "adb reconnect"), ("", "developer")],
)
def test_a_phone_that_does_not_answer_is_explained(
    state: str, fix: str, phone: Phone, tmp_path: Path
) -> None:
    phone.connect(**({"FAKE123": state} if state else {}))
    transport, plan = opened(phone, tmp_path)
    with pytest.raises(UserError, match=rf"(?s)cannot reach the device.*{fix}"):
        run(transport, plan)


def test_a_wrong_serial_number_is_explained(phone: Phone, tmp_path: Path) -> None:
    phone.connect(FAKE123="device")
    transport, plan = opened(phone, tmp_path, serial="NOPE")
    with pytest.raises(
        UserError, match=r"NOPE: not in the list(?s:.*)check `serial:`.*FAKE123 \(device\)"
    ):
        run(transport, plan)


def test_a_phone_is_waited_for(
    phone: Phone, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    phone.connect()
    transport, plan = opened(phone, tmp_path, wait_s=60)
    later = threading.Timer(0.2, lambda: phone.connect(FAKE123="device"))
    later.start()
    run(transport, plan)
    assert plan.results.is_file() and "waiting up to 60 s" in caplog.text


def unplugging(phone: Phone) -> Any:
    """Pulls the cable: adb fails, and the kit dies with its shell."""

    def unplug() -> None:
        (phone.folder / "unplugged").touch()
        (pid,) = phone.folder.rglob("pid")
        os.kill(int(pid.read_text()), signal.SIGKILL)

    return unplug


def test_a_lost_cable_is_waited_for_and_the_timing_goes_on(phone: Phone, tmp_path: Path) -> None:
    transport, plan = opened(phone, tmp_path, wait_s=60, rounds=10**6, time_budget_s=0.5)
    unplug = unplugging(phone)

    def pull() -> None:
        unplug()
        threading.Timer(0.1, (phone.folder / "unplugged").unlink).start()

    seen = Acts("timing", pull)
    run(transport, plan, seen)
    timing = [call for call in phone.calls() if "--out results.jsonl" in call[-1]]
    assert len(timing) == 2 and seen.act is None
    read_samples(plan)  # refuses turns that occur twice
    assert sum(line.get("seconds", 0) for line in read_jsonl(plan.results)) >= 0.5


def test_a_cable_that_stays_lost_is_an_error(phone: Phone, tmp_path: Path) -> None:
    transport, plan = opened(phone, tmp_path, wait_s=0.2, rounds=10**6)
    with pytest.raises(UserError, match=r"(?s)lost the connection.*run the same command again"):
        run(transport, plan, Acts("timing", unplugging(phone)))


def test_timing_pauses_while_the_phone_throttles(phone: Phone, tmp_path: Path) -> None:
    hot = phone.folder / "is-hot"
    hot.touch()
    status = f'[ -e {hot} ] && s=2 || s=0; echo "Thermal Status: $s"'
    phone.program("dumpsys", f'[ "$1" = thermalservice ] && {{ {status}; }}')
    transport, plan = opened(phone, tmp_path, rounds=10**6, time_budget_s=1)
    seen = Acts("waiting for the device to cool down", hot.unlink)
    run(transport, plan, seen)
    assert seen.act is None
    assert "timing" in seen.notes[seen.notes.index(seen.note) :], "it goes on after the pause"
    assert sum(line.get("seconds", 0) for line in read_jsonl(plan.results)) >= 1


def test_a_phone_that_stays_hot_is_timed_all_the_same(phone: Phone, tmp_path: Path) -> None:
    phone.program("dumpsys", 'echo "Thermal Status: 3"')
    transport, plan = opened(phone, tmp_path, rounds=10**6, time_budget_s=0.3, cool_down_s=0.2)
    begin = time.monotonic()
    run(transport, plan, Acts("", None))
    assert plan.results.is_file() and time.monotonic() - begin < 60


def test_the_fast_processors_are_used(phone: Phone, tmp_path: Path) -> None:
    phone.processors(PIXEL)
    masks = phone.folder / "masks"
    phone.program("taskset", f'echo "$1" >> {masks}; shift; exec "$@"')
    run(*opened(phone, tmp_path))
    assert masks.read_text().split() == ["c0"]  # processors 6 and 7


@pytest.mark.parametrize(
    ("allowed", "threads", "mask"),
    [("0-5", 1, "30"), ("0-3,5", 1, "20"), ("0-3", 1, ""), ("", 1, "c0"), ("2,4-7", 3, "f0")],
)
def test_only_processors_that_a_shell_may_use(
    allowed: str, threads: int, mask: str, phone: Phone
) -> None:
    """Outside of them, `taskset` fails. Without a difference in speed, no mask is needed."""
    phone.processors(PIXEL, allowed=allowed)
    phone.program("taskset", "")
    assert Reached(None, as_root=False).fast_mask(threads) == mask


def test_more_threads_than_a_phone_has_processors(phone: Phone) -> None:
    phone.processors(PIXEL, allowed="0-3")
    phone.program("taskset", "")
    reached = Reached(None, as_root=False)
    with pytest.raises(UserError, match=r"(?s)at most 4 threads.*5 threads.*force_threads"):
        reached.fast_mask(5, is_forced=False)
    assert reached.fast_mask(4, is_forced=False) == reached.fast_mask(5) == ""


def test_groups_of_fast_processors() -> None:
    pixel = [*enumerate(PIXEL)]
    assert fast_processors(pixel, 1) == fast_processors(pixel, 2) == [6, 7]
    assert fast_processors(pixel, 3) == fast_processors(pixel, 4) == [4, 5, 6, 7]
    assert fast_processors(pixel, 5) == fast_processors(pixel, 99) == [*range(8)]
    assert fast_processors([(0, 0), (1, 0)], 1) == [0, 1] and fast_processors([], 1) == []


def test_a_full_phone_is_explained(phone: Phone, tmp_path: Path) -> None:
    (phone.folder / "full").touch()
    transport, plan = opened(phone, tmp_path)
    with pytest.raises(UserError, match=r"(?s)disk of the device is full.*hwnas clean --device"):
        run(transport, plan)
    (phone.folder / "full").unlink()
    run(transport, plan)
    assert plan.results.is_file()


def test_what_is_left_on_the_phone_can_be_removed(phone: Phone, tmp_path: Path) -> None:
    transport, plan = opened(phone, tmp_path)
    run(transport, plan)
    assert isinstance(transport, CleaningTransport)
    home = {plan.results.stem: plan.results.stat().st_size}
    left = transport.leftovers(home)
    assert sorted(one.what for one in left) == [
        "Python and a runtime on a device",
        "models and kit on a device",
    ]
    for one in left:
        one.remove()
    assert not list((phone.folder / "hwnas-kit").iterdir())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"runner": "benchmark_model"}, "one of `binary` .*found neither"),
        ({"runner": "benchmark_model", "binary": "b", "binary_on_phone": "/b"}, "found both"),
        ({"binary": "b"}, "runner kit: expected neither `binary`"),
        ({"binary_on_phone": "$(reboot)"}, "binary_on_phone"),
        ({"wait_s": -1}, "wait_s"),
        ({"runner": "bench"}, "runner"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    changes: dict[str, Any], message: str, phone: Phone, tmp_path: Path
) -> None:
    (tmp_path / "phone.yaml").write_text(json.dumps(settings(phone, **changes)))
    with pytest.raises(UserError, match=message):
        load_device(str(tmp_path / "phone.yaml"))


def test_a_runtime_without_a_folder_is_named(phone: Phone, tmp_path: Path) -> None:
    (tmp_path / "phone.yaml").write_text(json.dumps({**settings(phone), "runtime": "openvino"}))
    wanted = r"(?s)no Python with openvino to copy.*litert.*`python`"
    with pytest.raises(UserError, match=wanted):
        load_transport(str(tmp_path / "phone.yaml"))
