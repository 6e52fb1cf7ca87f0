"""Systems that lack what a laptop has: a home, file locks, Linux's own calls, a UTF-8 console."""

from __future__ import annotations

import errno
import fcntl
import io
import logging
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import hwnas
from hwnas.core.env import cache_folder, user_path
from hwnas.core.errors import UserError
from hwnas.core.locks import exclusive_lock
from hwnas.core.resources import resource
from hwnas.exporters import own
from hwnas.exporters.opened import CannotRunHere
from hwnas.training import decode
from hwnas.training.datasets.image_folder import Config, identity
from hwnas.training.photo_config import data_root
from tests.bundles import colour_bundle, colour_manifest, run_kit
from tests.kit import load_kit
from tests.photos import class_folders

NOBODY = "~nobody-of-this-name"


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container whose user id has no entry in passwd."""
    monkeypatch.delenv("HWNAS_CACHE", raising=False)

    def expanduser(path: Path) -> Path:
        if str(path).startswith("~"):
            raise RuntimeError("Could not determine home directory.")
        return path

    monkeypatch.setattr(Path, "expanduser", expanduser)


def pixels() -> tuple[decode.Encoded, np.ndarray]:
    stream = io.BytesIO()
    decode.Image.fromarray(np.full((8, 8, 3), 7, np.uint8)).save(stream, "png")
    content = stream.getvalue()
    images = decode.Encoded(["a"], lambda i: io.BytesIO(content), "key-of-odd-systems")
    return images, np.full((1, 8, 8, 3), 7, np.uint8)


@pytest.mark.usefixtures("homeless")
def test_without_a_home_there_is_no_cache_and_the_rest_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(UserError, match=r"(?s)no such home folder.*HWNAS_CACHE"):
        cache_folder()
    images, expected = pixels()
    with caplog.at_level(logging.WARNING):
        found, broken = decode.decode(images, 8)
    assert not broken and np.array_equal(found, expected) and "no cache" in caplog.text
    class_folders(tmp_path, ["ant", "bee"], 2, px=8)
    assert len(identity(Config(root=str(tmp_path))).files["train"]) == 4
    own.remember(b"engine")
    with pytest.raises(CannotRunHere):
        own.require_own(b"engine", tmp_path / "a.engine")


def test_the_home_of_nobody_is_an_error_that_names_its_setting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for call, setting in (
        (lambda: data_root(f"{NOBODY}/photos"), "data.root"),
        (lambda: user_path(f"{NOBODY}/key", where="identity"), "identity"),
    ):
        with pytest.raises(UserError) as caught:
            call()
        assert caught.value.where == setting and NOBODY in str(caught.value)
    monkeypatch.setenv("HWNAS_DATA", "~")
    assert data_root("photos") == Path.home() / "photos"
    monkeypatch.setenv("HWNAS_DATA", NOBODY)
    with pytest.raises(UserError, match="HWNAS_DATA"):
        data_root("photos")


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_warned_of_and_used(
    number: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "lockf", refuse)
    monkeypatch.setattr(fcntl, "flock", refuse)
    with exclusive_lock(tmp_path / "run" / ".lock", owner="test"):
        assert "no locks" in caplog.text and str(tmp_path / "run") in caplog.text
    images, expected = pixels()
    monkeypatch.setenv("HWNAS_CACHE", str(tmp_path / "cache"))
    assert np.array_equal(decode.decode(images, 8)[0], expected)
    assert list((tmp_path / "cache").rglob("*.npy"))
    load_kit().Results(tmp_path / "results.jsonl")
    assert "has no locks" in capsys.readouterr().err


def test_a_lock_that_is_held_is_still_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def held(*arguments: object) -> None:
        raise BlockingIOError(errno.EAGAIN, "held")

    monkeypatch.setattr(fcntl, "lockf", held)
    with (
        pytest.raises(UserError, match="another process"),
        exclusive_lock(tmp_path / ".lock", owner="test"),
    ):
        pytest.fail("locked twice")


@pytest.mark.parametrize("lacks", ["macos", "refused"])
def test_photos_are_decoded_without_posix_fallocate(
    lacks: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if lacks == "macos":
        monkeypatch.delattr(os, "posix_fallocate")
    else:

        def refuse(*arguments: object) -> None:
            raise OSError(errno.EOPNOTSUPP, "not supported")

        monkeypatch.setattr(os, "posix_fallocate", refuse)
    monkeypatch.setenv("HWNAS_CACHE", str(tmp_path))
    images, expected = pixels()
    assert np.array_equal(decode.decode(images, 8)[0], expected)
    (kept,) = tmp_path.rglob("*.npy")
    assert np.array_equal(np.load(kept), expected)


WINDOWS = "import sys; sys.modules.update(dict.fromkeys(('fcntl', 'resource'))); "


def test_windows_is_told_in_one_line() -> None:
    kit = str(resource("export", "bench.py"))
    hide = f"import runpy; sys.path.insert(0, {str(Path(kit).parent)!r}); sys.argv[:] = [{kit!r}, "
    code = WINDOWS + hide + f"'--runtimes']; runpy.run_path({kit!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == "bench.py needs Linux or macOS; on Windows, run it in WSL\n"
    environment = {**os.environ, "PYTHONPATH": str(Path(hwnas.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", WINDOWS + "import hwnas"],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert "ImportError: hwnas needs Linux or macOS" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_console_that_lacks_letters_shows_their_codes(encoding: str, tmp_path: Path) -> None:
    manifest = colour_manifest()
    names = ("\u732b", *manifest.input.class_names[1:])
    manifest = replace(manifest, input=replace(manifest.input, class_names=names))
    colour_bundle(tmp_path / "bundle", manifest)
    samples = sorted((tmp_path / "bundle" / "samples").glob("*.ppm"))
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = run_kit(tmp_path / "bundle", "ort_run.py", *samples, env=environment)
    assert done.returncode == 0, done.stderr
    assert "\\u732b" in done.stdout
