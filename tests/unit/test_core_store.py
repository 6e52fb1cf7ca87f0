"""Atomic files, JSON lines that survive a kill, hashes and the lock."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwnas.core.errors import UserError
from hwnas.core.locks import exclusive_lock
from hwnas.core.store import (
    append_jsonl,
    content_hash,
    file_hash,
    read_json,
    read_jsonl,
    write_bytes,
    write_json,
)


def test_a_failed_write_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "a" / "file"
    write_bytes(path, b"old")

    def broken(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("hwnas.core.store.os.replace", broken)
    with pytest.raises(UserError, match="disk full"):
        write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in path.parent.iterdir()] == ["file"]


def test_a_torn_last_line_is_ignored_and_repaired(tmp_path: Path):
    path = tmp_path / "log.jsonl"
    append_jsonl(path, {"a": 1})
    with path.open("ab") as stream:
        stream.write(b'{"a": 2, "tor')
    assert read_jsonl(path) == [{"a": 1}]
    append_jsonl(path, {"a": 3})
    assert read_jsonl(path) == [{"a": 1}, {"a": 3}]


def test_a_file_that_is_one_long_torn_line_is_repaired(tmp_path: Path):
    path = tmp_path / "log.jsonl"
    path.write_bytes(b"x" * 10_000)
    append_jsonl(path, {"a": 1})
    assert path.read_bytes() == b'{"a": 1}\n'


@pytest.mark.parametrize("line", [b"not json\n", b"[1]\n", b'{"a": NaN}\n', b"\n"])
def test_a_broken_whole_line_is_an_error_with_its_number(tmp_path: Path, line: bytes):
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"a": 1}\n' + line + b'{"a": 3}\n')
    with pytest.raises(UserError, match=r"log\.jsonl:2"):
        read_jsonl(path)


@pytest.mark.parametrize("text", ["", "{", "NaN", '{"a": Infinity}', "[" * 100_000])
def test_json_that_is_not_plain_json_is_refused(tmp_path: Path, text: str):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(UserError, match="not valid JSON"):
        read_json(path)


def test_a_missing_json_file_is_a_user_error(tmp_path: Path):
    with pytest.raises(UserError, match=r"(?s)file not found.*expected: a JSON file.*fix: check"):
        read_json(tmp_path / "none.json")


def test_nan_is_never_written(tmp_path: Path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x.json", {"a": float("nan")})
    assert not list(tmp_path.iterdir())


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), json_values, min_size=2))
def test_a_hash_does_not_depend_on_key_order(data: dict):
    reversed_order = dict(reversed(list(data.items())))
    if all(value not in (float("inf"), float("-inf")) for value in data.values()):
        try:
            expected = content_hash(data)
        except ValueError:  # an infinity inside
            return
        assert content_hash(reversed_order) == expected


def test_file_hash_is_sha256(tmp_path: Path):
    path = tmp_path / "x"
    path.write_bytes(b"abc")
    sha256_of_abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert file_hash(path) == sha256_of_abc


def _try_lock(path: str, answer: multiprocessing.Queue) -> None:
    try:
        with exclusive_lock(Path(path), owner="second"):
            answer.put("locked")
    except UserError as error:
        answer.put(str(error))


def test_a_second_process_is_refused_and_told_who_holds_the_lock(tmp_path: Path):
    path = tmp_path / ".lock"
    context = multiprocessing.get_context("fork")
    answer = context.Queue()
    with exclusive_lock(path, owner="hwnas train"):
        child = context.Process(target=_try_lock, args=(str(path), answer))
        child.start()
        assert "hwnas train, pid" in answer.get(timeout=20)
        child.join()
    with exclusive_lock(path, owner="after"):
        pass


def test_a_killed_holder_frees_the_lock(tmp_path: Path):
    path = tmp_path / ".lock"
    code = (
        "import os, pathlib, signal, sys\n"
        "from hwnas.core.locks import exclusive_lock\n"
        "with exclusive_lock(pathlib.Path(sys.argv[1]), owner='victim'):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)]).returncode == -9
    with exclusive_lock(path, owner="heir"):
        pass


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_files_are_as_private_as_the_user_wants(umask: int, mode: int, tmp_path: Path):
    before = os.umask(umask)
    try:
        write_json(tmp_path / "a.json", {})
    finally:
        os.umask(before)
    assert (tmp_path / "a.json").stat().st_mode & 0o777 == mode
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
