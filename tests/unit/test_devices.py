"""Device specs load strictly; the kit's subprocess reports, fails and stops as it should."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from hwnas.core.errors import UserError
from hwnas.core.progress import silent
from hwnas.core.resources import resource
from hwnas.devices.kit import run_kit
from hwnas.devices.spec import (
    device_names,
    load_device,
    load_devices,
    load_transport,
    open_transport,
)
from hwnas.interfaces import DeviceSpec
from tests.limits import bounded


@pytest.mark.parametrize("name", device_names())
def test_a_shipped_device_is_valid_and_says_what_it_is(name: str):
    device = load_device(name)
    assert device.name == name
    load_transport(name)  # connects to nothing
    head, *_ = resource("configs", "devices", f"{name}.yaml").read_text().splitlines()
    assert head.startswith("# ") and head.endswith((".", "edit."))


HOW_TO = Path(__file__).resolve().parents[2] / "docs" / "profile-my-board.md"
EXAMPLES = dict(re.findall(r"^```yaml (\S+)\n(.*?)^```", HOW_TO.read_text(), re.M | re.S))


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_device_of_the_how_to_is_valid(name: str, tmp_path: Path):
    (tmp_path / name).write_text(EXAMPLES[name])
    assert load_device(str(tmp_path / name)).name == Path(name).stem
    load_transport(str(tmp_path / name))


def test_the_plain_device_is_this_machine():
    assert load_device("local") == DeviceSpec("local")
    assert load_device("local_int8") == DeviceSpec("local_int8", precision="int8")


def test_a_spec_alone_reaches_this_machine_but_no_board():
    open_transport(DeviceSpec("local"))
    with pytest.raises(UserError, match="host: this key is required, but missing"):
        open_transport(DeviceSpec("board", transport="ssh"))


def test_a_users_file_is_a_device_named_after_it(tmp_path: Path):
    path = tmp_path / "my_board.yaml"
    path.write_text("schema_version: 1\nthreads: 4\nprovider: XnnpackExecutionProvider\n")
    assert load_device(str(path)) == DeviceSpec(
        "my_board", threads=4, provider="XnnpackExecutionProvider"
    )


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("schema_version: 1\nthread: 4", "did you mean 'threads'"),
        ("schema_version: 1\nthreads: 0", "threads"),
        ("schema_version: 1\nthreads: '4'", "threads"),
        ("schema_version: 1\nprecision: bf16", "precision"),
        ("schema_version: 1\nname: other", "name"),
        ("schema_version: 1\ntransport: locall", "did you mean 'local'"),
        ("schema_version: 1\nruntime: onnxruntim", "did you mean 'onnxruntime'"),
        ("schema_version: 1\nruntime: abacus", "onnxruntime, openvino, tensorrt"),
        ("schema_version: 1\ntransport: {name: ssh}", "host"),
        ("schema_version: 1\ntransport: {name: ssh, host: b, prot: 22}", "did you mean 'port'"),
        ("threads: 4", "schema_version"),
        ("schema_version: 7", "schema_version"),
    ],
)
def test_an_invalid_device_file_is_explained(text: str, word: str, tmp_path: Path):
    path = tmp_path / "board.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=word):
        load_device(str(path))


def test_unknown_and_unfit_names(tmp_path: Path):
    with pytest.raises(UserError, match="did you mean 'local'"):
        load_device("locl")
    path = tmp_path / "my board.yaml"
    path.write_text("schema_version: 1")
    with pytest.raises(UserError, match="file name"):
        load_device(str(path))


def test_devices_whose_names_differ_only_in_case_are_refused(tmp_path: Path):
    """Their tables would be one file on macOS."""
    for folder, name in (("lab", "pi.yaml"), ("home", "Pi.YAML"), ("shed", "pi.yml")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_text("schema_version: 1\n")
    assert load_device(str(tmp_path / "home" / "Pi.YAML")).name == "Pi"
    for other in ("home/Pi.YAML", "shed/pi.yml"):
        with pytest.raises(UserError, match=r"two devices are called .*\n.*\n.*lab/pi\.yaml"):
            load_devices([str(tmp_path / "lab" / "pi.yaml"), str(tmp_path / other)])


def kit(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_progress_lines_reach_the_caller_and_talk_does_not():
    seen = []
    code = """
import sys, os
print('hello', file=sys.stderr)
print('{"done": 3, "total": 9, "note": "timing"}', file=sys.stderr)
print('{"odd": 1}', file=sys.stderr)
sys.exit(0 if os.environ["OMP_NUM_THREADS"] == "7" else 1)
"""

    def progress(done: int, total: int, note: str = "") -> None:
        seen.append((done, total, note))

    run_kit(kit(code), environment={"OMP_NUM_THREADS": "7"}, progress=progress, where="here")
    assert seen == [(3, 9, "timing"), (9, 9, "timing")], "a kit that ends early has done it all"


def test_what_a_kit_notes_before_it_times_reaches_the_user(caplog: pytest.LogCaptureFixture):
    code = "import sys; print('bench.py: note: 9 threads', file=sys.stderr)"
    run_kit(kit(code), environment={}, progress=silent, where="here")
    assert "9 threads" in caplog.text


def test_a_failing_kit_is_an_error_that_shows_what_it_said():
    code = "import sys; print('no such provider', file=sys.stderr); sys.exit(1)"
    with pytest.raises(UserError, match="no such provider") as caught:
        run_kit(kit(code), environment={}, progress=silent, where="plan.json")
    assert "exit status 1" in str(caught.value) and "plan.json" in str(caught.value)


def test_an_interrupted_kit_interrupts_us():
    with pytest.raises(KeyboardInterrupt):
        run_kit(kit("raise SystemExit(130)"), environment={}, progress=silent, where="")


def test_a_kit_that_never_ends_its_line_takes_no_memory() -> None:
    code = "import sys; [sys.stderr.write('x' * (1 << 20)) for _ in range(300)]; sys.exit(1)"
    with bounded(seconds=20, memory=1 << 27), pytest.raises(UserError, match="exit status 1"):
        run_kit(kit(code), environment={}, progress=silent, where="")


@pytest.fixture
def interruptible():
    """Jobs that a shell runs in the background ignore SIGINT, and this test may be part of one."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_our_interrupt_reaches_the_kit_which_may_finish_its_line(tmp_path: Path):
    note = tmp_path / "saved"
    code = f"""
import sys, time, pathlib
print('{{"done": 0, "total": 1, "note": ""}}', file=sys.stderr, flush=True)
try:
    time.sleep(30)
except KeyboardInterrupt:
    time.sleep(0.2)
    pathlib.Path({str(note)!r}).write_text("saved")
    sys.exit(130)
"""
    ready = threading.Event()

    def progress(done: int, total: int, note: str = "") -> None:
        ready.set()

    def interrupt() -> None:
        ready.wait(20)
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        run_kit(kit(code), environment={}, progress=progress, where="")
    assert note.read_text() == "saved"
