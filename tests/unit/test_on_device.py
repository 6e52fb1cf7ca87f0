"""What the kit answers about a model is read as a stranger's: plain arrays of the right size."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hwnas.core.errors import UserError
from hwnas.core.records import dump
from hwnas.core.resources import resource
from hwnas.interfaces import DeviceSpec
from hwnas.measure import on_device
from hwnas.measure.on_device import run_on_device
from tests.bundles import colour_net, kit_module

X = np.zeros((3, 3, 8, 8), np.float32)
GOOD, SAID = np.zeros((3, 2), np.float32), '{"precision": "fp32"}\n'


def npy(array: np.ndarray[Any, Any]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def liar() -> bytes:
    """Says that it holds 64 GB."""
    content = npy(np.zeros(64, np.uint8))
    return content.replace(b"(64,)", b"(64000000000,)").replace(9 * b" " + b"\n", b"\n", 1)


class Trap:
    """What is unpickled would be run."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("it was unpickled",))


HOSTILE = {
    "pickled": npy(np.array([Trap()], dtype=object)),
    "larger than its file": liar(),
    "cut": npy(GOOD)[:-4],
    "not at all": b"",
    "text": b"logits",
    "float64": npy(GOOD.astype(np.float64)),
    "of fewer images": npy(GOOD[:2]),
    "of another rank": npy(np.zeros(3, np.float32)),
}


def answer(content: bytes, said: str, monkeypatch: pytest.MonkeyPatch) -> on_device.DeviceRun:
    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        Path(command[-1]).write_bytes(content)
        return subprocess.CompletedProcess(command, 0, said, "")

    monkeypatch.setattr(on_device.subprocess, "run", run)
    return run_on_device(DeviceSpec("local"), Path("model.onnx"), X)


@pytest.mark.parametrize("kind", HOSTILE)
def test_logits_that_are_none_are_refused(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"(?s)not valid.*\[3, classes\].*model\.onnx"):
        answer(HOSTILE[kind], SAID, monkeypatch)


@pytest.mark.parametrize(
    "said", ["", "[]", "null", "{}x", '{"precision": "int4"}', '{"precision": [' + 9000 * "["]
)
def test_a_precision_that_is_none_is_refused(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="is not valid"):
        answer(npy(GOOD), said, monkeypatch)


def test_an_honest_answer_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    found = answer(npy(GOOD), f"loading\n{SAID}", monkeypatch)
    assert np.array_equal(found.logits, GOOD) and found.precision == "fp32"
    assert answer(npy(GOOD), '{"precision": null}', monkeypatch).precision is None


# --- the kit --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["pickled", "larger than its file", "cut", "not at all", "text"])
def test_the_kit_reads_no_hostile_arrays(kind: str) -> None:
    files, images = kit_module("bundle_files"), kit_module("bundle_images")
    content = HOSTILE[kind]
    with pytest.raises(ValueError):
        files.read_npy(io.BytesIO(content), len(content))
    if content.startswith(b"\x93NUMPY"):
        with pytest.raises(files.BundleError, match="cannot read"):
            images.decode(content, "x.npy")


def test_the_kit_refuses_images_of_another_shape(tmp_path: Path) -> None:
    import onnx

    onnx.save(colour_net("fp32", "batch"), tmp_path / "m.onnx")
    kit = str(resource("export", "device_run.py"))
    spec = json.dumps(dump(DeviceSpec("local"), versioned=False))
    for name, content in {"x": npy(X[0]), "y": npy(X.astype(np.float64)), "z": liar()}.items():
        (tmp_path / name).write_bytes(content)
        command = [kit, "--logits", spec, str(tmp_path / "m.onnx"), str(tmp_path / name), "out"]
        done = subprocess.run(
            [sys.executable, *command], capture_output=True, text=True, cwd=tmp_path
        )
        assert done.returncode == 1 and done.stderr.startswith("error: "), done.stderr
        assert len(done.stderr.splitlines()) == 1 and not (tmp_path / "out").exists()
