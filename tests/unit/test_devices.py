"""Device specs load strictly; the kit's subprocess reports, fails and stops as it should."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from hwnas.core.errors import UserError
from hwnas.core.progress import silent
from hwnas.devices.kit import run_kit
from hwnas.devices.spec import device_names, load_device, open_transport
from hwnas.interfaces import DeviceSpec


def test_every_shipped_device_is_valid():
    assert "local" in device_names()
    for name in device_names():
        assert load_device(name).name == name
        open_transport(load_device(name))
    assert load_device("local") == DeviceSpec("local")


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
    assert seen == [(3, 9, "timing")]


def test_a_failing_kit_is_an_error_that_shows_what_it_said():
    code = "import sys; print('no such provider', file=sys.stderr); sys.exit(1)"
    with pytest.raises(UserError, match="no such provider") as caught:
        run_kit(kit(code), environment={}, progress=silent, where="plan.json")
    assert "exit status 1" in str(caught.value) and "plan.json" in str(caught.value)


def test_an_interrupted_kit_interrupts_us():
    with pytest.raises(KeyboardInterrupt):
        run_kit(kit("raise SystemExit(130)"), environment={}, progress=silent, where="")


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
