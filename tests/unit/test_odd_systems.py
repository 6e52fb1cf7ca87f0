"""Systems that lack what a laptop has: a home, file locks, Linux's own calls, a UTF-8 console."""

from __future__ import annotations

import errno
import fcntl
import io
import logging
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import typer
from torch.utils.data import DataLoader
from typer.testing import CliRunner

import hwnas
from hwnas.api.result import no_progress
from hwnas.cli import main
from hwnas.cli.main import app
from hwnas.core import locks
from hwnas.core.env import cache_folder, user_path
from hwnas.core.errors import UserError, out_of_memory
from hwnas.core.locks import exclusive_lock
from hwnas.core.owners import owner_of
from hwnas.core.resources import resource
from hwnas.core.store import append_jsonl, write_bytes
from hwnas.exporters import own
from hwnas.exporters.opened import CannotRunHere
from hwnas.interfaces import DatasetContext
from hwnas.pipeline import data_checks
from hwnas.pipeline.opening import open_project
from hwnas.training import decode, file_hashes
from hwnas.training.datasets import image_folder
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
    with pytest.raises(UserError, match=r"(?s)home folder of a path is unknown.*HWNAS_CACHE"):
        cache_folder()
    images, expected = pixels()
    with caplog.at_level(logging.WARNING):
        found, broken = decode.decode(images, 8)
    assert not broken and np.array_equal(found, expected) and "cannot cache" in caplog.text
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


# --- permissions, other users, signals, clocks, memory --------------------------------------------


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_files_have_the_permissions_that_open_gives(umask: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        write_bytes(tmp_path / "new", b"1")
        append_jsonl(tmp_path / "lines", {"a": 1})
        (tmp_path / "plain").write_bytes(b"1")
        modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
        assert modes == dict.fromkeys(("new", "lines", "plain"), 0o666 & ~umask)
        (tmp_path / "new").chmod(0o640)
        write_bytes(tmp_path / "new", b"2")
        assert (tmp_path / "new").stat().st_mode & 0o777 == 0o640
    finally:
        os.umask(before)


def test_who_works_on_a_run_folder_is_named(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from hwnas.core.locks import exclusive_lock\n"
        "with exclusive_lock(pathlib.Path(sys.argv[1]), owner='hwnas train'):\n"
        "    print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline() == b"held\n"
        with pytest.raises(UserError) as caught, exclusive_lock(tmp_path / ".lock", owner="x"):
            pass
        other.communicate(b"")
    for part in ("hwnas train", f"pid {other.pid}", f"user {owner_of(tmp_path)} on ", tmp_path):
        assert str(part) in str(caught.value)


def test_a_folder_of_another_user_is_told_with_its_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    (tmp_path / ".lock").touch()
    monkeypatch.setattr(locks, "open_unlinked", refuse)
    told = pytest.raises(UserError, match="a run folder of another user")
    with told as caught, exclusive_lock(tmp_path / ".lock", owner="x"):
        pass
    assert f".lock of {owner_of(tmp_path)}" in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_a_file_that_must_not_be_written_is_told_with_its_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its own name, not by that of a temporary file. Root is refused by an imitation."""
    create = os.open

    def refuse(path: object, flags: int, *mode: int) -> int:
        if flags & os.O_CREAT:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return create(path, flags, *mode)  # type: ignore[arg-type]

    (tmp_path / "old").touch()
    monkeypatch.setattr(os, "open", refuse)
    owner = owner_of(tmp_path)
    for name, found in (
        ("new", f"a folder of {owner}"),
        ("old", f"a file of {owner} in a folder of {owner}"),
    ):
        for write in (write_bytes, append_jsonl):
            with pytest.raises(UserError) as caught:
                write(tmp_path / name, b"" if write is write_bytes else {})  # type: ignore[operator]
            assert str(caught.value.where) == str(tmp_path / name)
            assert caught.value.found == f"Permission denied: {found}"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize("name", ["report.html", "new/report.html"])
def test_another_user_is_told_whose_folder_it_is(name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to others
        os.chmod(folder, 0o755)
        heard, says = os.pipe()
        if (child := os.fork()) == 0:
            os.setuid(65534)
            try:
                write_bytes(Path(folder, name), b"")
            except UserError as error:
                os.write(says, str(error).encode())
            os._exit(0)
        os.close(says)
        os.waitpid(child, 0)
        with os.fdopen(heard, "rb") as stream:
            text = stream.read().decode()
    assert "Permission denied: a folder of root" in text and ".tmp" not in text
    assert f"where: {folder}" in text


def test_a_folder_that_must_not_be_read_is_told_with_its_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`chmod` does not keep root out, so the answer of the system is imitated."""
    run = tmp_path / "run"
    run.mkdir()
    ask = os.access
    monkeypatch.setattr(os, "access", lambda path, how: Path(path) != run and ask(path, how))
    for verb in ("status", "check", "undo", "train", "verify", "analyze", "clean"):
        done = CliRunner().invoke(app, [verb, str(run)])
        text = done.output if done.exception is None else str(done.exception)
        assert "cannot read the run folder" in text and owner_of(run) in text, (verb, text)


def test_no_option_for_a_run_folder_refuses_an_unreadable_one_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parser of options does not name the owner."""
    parsers = [typer.main.get_command(app)]
    for group in parsers:
        parsers += getattr(group, "commands", {}).values()
    options = [one for command in parsers for one in command.params if "--run" in one.opts]
    declared = [vars(one)["type_descriptor"].parameter_info for one in options]
    assert len(declared) >= 4 and not any(one.readable for one in declared)
    ask = os.access
    monkeypatch.setattr(os, "access", lambda path, how: Path(path) != tmp_path and ask(path, how))
    with pytest.raises(UserError, match=f"a folder of {owner_of(tmp_path)}"):
        hwnas.table_list(run=tmp_path)


def cli(*arguments: str, before: str = "", **options: object) -> subprocess.CompletedProcess[str]:
    """The command in a shell that does `before` first."""
    environment = {**os.environ, "PYTHONPATH": str(Path(hwnas.__file__).parents[1])}
    line = f"{before}; exec {shlex.join([sys.executable, '-m', 'hwnas', *arguments])}"
    return subprocess.run(
        ["bash", "-c", line.removeprefix("; ")],
        **{"capture_output": True, "text": True, "env": environment, **options},  # type: ignore[call-overload]
    )


@pytest.mark.parametrize("closed", ["exec >&-", "exec 2>&-", "exec <&- >&- 2>&-"])
def test_closed_streams_are_no_traceback(closed: str) -> None:
    done = cli("list", "spaces", before=closed)
    assert done.returncode == 0 and "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize("name", ["SIGHUP", "SIGTERM", "SIGINT"])
@pytest.mark.parametrize("ignored", [False, True])
def test_a_signal_ends_in_the_way_on(name: str, ignored: bool) -> None:
    number = getattr(signal, name)
    code = (
        "import os, signal, sys, hwnas; from hwnas.cli.main import main\n"
        f"signal.signal({int(number)}, signal.SIG_IGN if {ignored} else signal.SIG_DFL)\n"
        f"hwnas.status = lambda *a, **k: (os.kill(os.getpid(), {int(number)}), sys.exit(7))\n"
        "main(['status', 'x'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if ignored and name == "SIGHUP":  # nohup: the work goes on
        assert done.returncode == 7
        return
    assert done.returncode == 128 + number
    assert f"stopped by {name}; nothing is lost; to resume: hwnas status x" in done.stderr


def test_a_full_stdout_is_an_error(tmp_path: Path) -> None:
    done = cli("list", "spaces", before="exec >/dev/full")
    assert done.returncode == 1 and done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


def test_too_little_memory_is_told_in_words() -> None:
    done = cli("space", "from-timm", "tinynet_e", before="ulimit -v 700000")
    assert done.returncode == 1
    assert "error: too little memory" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("error", [MemoryError(), ImportError("x: failed to map segment")])
def test_errors_of_memory_are_known(error: Exception) -> None:
    assert "too little memory" in str(out_of_memory(error))
    assert out_of_memory(ImportError("no module named x")) is None


@pytest.mark.parametrize(
    ("how", "status", "said"),
    [
        ("is killed by signal: Terminated", 143, "stopped by SIGTERM; nothing is lost"),
        ("is killed by signal: Killed", 1, "error: a process that prepares images was killed"),
        ("exited unexpectedly", 1, "error: a process that prepares images was killed"),
    ],
)
def test_killed_image_workers_are_told_in_words(
    how: str,
    status: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def stop(arguments: list[str]) -> None:
        raise RuntimeError(f"DataLoader worker (pid(s) 7) {how}.")

    monkeypatch.setattr(main, "_run", stop)
    monkeypatch.setattr(signal, "signal", lambda *given: None)
    with pytest.raises(SystemExit) as ending:
        main._main(["train", "x"])
    assert ending.value.code == status
    assert said in capsys.readouterr().err


def test_workers_that_cannot_start_name_shared_memory_and_the_way_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    class_folders(tmp_path, ["ant", "bee"], 8, px=8)
    data = image_folder.build(Config(root=str(tmp_path), base_px=8), DatasetContext(0, n_workers=1))
    monkeypatch.setattr(DataLoader, "__iter__", full)
    with pytest.raises(UserError, match=r"(?s)cannot start.*No space left.*workers=0"):
        data.train_batches(0, 4)
    monkeypatch.setattr(data_checks.multiprocessing, "get_context", full)
    with pytest.raises(UserError, match=r"(?s)cannot start.*No space left.*workers=0"):
        data_checks._processes_can_talk()


def test_killed_image_workers_are_errors_of_hwnas_in_python(tmp_path: Path) -> None:
    shutil.copy(resource("configs", "digits.yaml"), tmp_path / "config.yaml")
    how = {"progress_for": no_progress, "command": "hwnas train"}
    for read_only in (False, True):
        with (
            pytest.raises(UserError, match="a process that prepares images was killed") as killed,
            open_project(tmp_path, read_only=read_only, **how),
        ):
            raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")
        assert isinstance(killed.value.__cause__, RuntimeError)
        with pytest.raises(RuntimeError, match="shapes"), open_project(tmp_path, **how):
            raise RuntimeError("shapes differ")


@pytest.mark.parametrize("jump_s", [-20 * 365 * 86400, 20 * 365 * 86400])
def test_a_clock_that_jumps_hides_no_changed_file(
    jump_s: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HWNAS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "a").write_bytes(b"1")
    real = file_hashes.time.time_ns
    first = file_hashes.file_hashes(folder, ["a"])
    monkeypatch.setattr(file_hashes.time, "time_ns", lambda: real() + jump_s * 10**9)
    assert file_hashes.file_hashes(folder, ["a"]) == first
    (folder / "a").write_bytes(b"2")
    assert file_hashes.file_hashes(folder, ["a"]) != first


def test_what_is_measured_and_resumed_asks_no_wall_clock() -> None:
    root = Path(hwnas.__file__).parents[1]
    asked = re.compile(r"time\.time(_ns)?\(|datetime\.now\(|datetime\.datetime\.now\(")
    sources = [*root.glob("hwnas/**/*.py"), *root.glob("export/*.py")]
    found = {path.name for path in sources if asked.search(path.read_text())}
    assert found == {
        "history.py",  # for people
        "bench_host.py",  # for people
        "web_session.py",  # for people
        "benchmark_model.py",  # for people
        "file_hashes.py",  # beside times of files, by the same clock
    }


def test_numbers_of_system_errors_are_left_out() -> None:
    found = OSError(13, "Permission denied", "/photos")
    for given in (str(found), found):
        text = str(UserError("cannot read a file", found=given, where="/photos"))
        assert "found: Permission denied: '/photos'" in text and "Errno" not in text
