"""The files of runtimes for browsers: pinned archives, fetched by npm or given by hand."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from hwnas.api.profile import profile
from hwnas.core import web_runtimes
from hwnas.core.errors import UserError
from hwnas.core.web_runtimes import RUNTIMES, WebPackage, WebRuntime, fetch_runtime, runtime_folder

SPACE = {"space": "mobilenet_tiny", "resolutions": [16], "num_classes": 10}


def archive(**files: str) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(f"package/{name}.js")
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    return stream.getvalue()


CONTENT = archive(a='import "@x/b";', other="alert(1)")


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WebPackage:
    """One small package in place of LiteRT's."""
    package = WebPackage(
        "@x/a",
        "1.2.3",
        hashlib.sha256(CONTENT).hexdigest(),
        len(CONTENT),
        "MIT",
        {"package/a.js": "a.js"},
        ('"@x/b"', '"./b.js"'),
    )
    monkeypatch.setattr(web_runtimes, "RUNTIMES", {"litert": WebRuntime((package,))})
    monkeypatch.setenv("HWNAS_CACHE", str(tmp_path / "cache"))
    return package


def fake_npm(folder: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> Path:
    """An npm that records its arguments, and packs `content`."""
    folder.mkdir()
    (folder / "content").write_bytes(content)
    (folder / "npm").write_text(
        f"#!{sys.executable}\nimport pathlib, shutil, sys\n"
        f"here = pathlib.Path({str(folder)!r})\n"
        "with open(here / 'calls', 'a') as stream: stream.write(' '.join(sys.argv[1:]) + '\\n')\n"
        "to = sys.argv[sys.argv.index('--pack-destination') + 1]\n"
        "shutil.copy(here / 'content', to + '/x-a-1.2.3.tgz')\n"
    )
    (folder / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    return folder / "calls"


def test_it_is_fetched_once_after_a_notice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    calls = fake_npm(tmp_path / "npm", monkeypatch, CONTENT)
    with pytest.raises(UserError, match="--fetch"):
        runtime_folder("litert")
    assert not calls.exists(), "nothing is fetched unasked"
    with caplog.at_level(logging.WARNING):
        folder = fetch_runtime("litert")
    assert "fetching @x/a 1.2.3 with npm" in caplog.text and "licence MIT" in caplog.text
    assert {path.name for path in folder.iterdir()} == {"a.js"}
    assert (folder / "a.js").read_text() == 'import "./b.js";'
    assert fetch_runtime("litert") == folder == runtime_folder("litert")
    (call,) = calls.read_text().splitlines()
    assert "--ignore-scripts" in call and call.endswith("@x/a@1.2.3")


def test_an_archive_of_another_content_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_npm(tmp_path / "npm", monkeypatch, archive(a="alert(1)"))
    with pytest.raises(UserError, match="unexpected content"):
        fetch_runtime("litert")
    with pytest.raises(UserError, match="not on this machine"):
        runtime_folder("litert")


def test_an_archive_given_by_hand_needs_no_npm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", os.devnull)
    with pytest.raises(UserError, match="npm is not installed") as caught:
        fetch_runtime("litert")
    assert "npm pack @x/a@1.2.3" in str(caught.value)
    by_hand = tmp_path / "cache" / "web" / "x-a-1.2.3.tgz"
    by_hand.parent.mkdir(parents=True)
    by_hand.write_bytes(b"else")
    with pytest.raises(UserError, match="unexpected content"):
        fetch_runtime("litert")
    by_hand.write_bytes(CONTENT)
    assert (fetch_runtime("litert") / "a.js").is_file()


def test_npm_without_a_network_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "npm").write_text("#!/bin/sh\necho npm error network down >&2\nexit 1\n")
    (tmp_path / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="network down"):
        fetch_runtime("litert")


def test_another_pin_gets_another_folder(
    runtime: WebPackage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_npm(tmp_path / "npm", monkeypatch, CONTENT)
    fetch_runtime("litert")
    newer = WebRuntime((replace(runtime, sha256="0" * 64),))
    monkeypatch.setattr(web_runtimes, "RUNTIMES", {"litert": newer})
    with pytest.raises(UserError, match="not on this machine"):
        runtime_folder("litert")


def test_devices_without_downloads_refuse_the_option() -> None:
    with pytest.raises(UserError, match="needs no download"):
        profile("local", **SPACE, fetch=True)


def test_pins_are_complete() -> None:
    for runtime in RUNTIMES.values():
        assert all(len(package.sha256) == 64 for package in runtime.packages)
        assert len(set(runtime.files)) == len(runtime.files)
        assert not any("/" in name for name in runtime.files)


def test_files_that_are_gone_are_fetched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_npm(tmp_path / "npm", monkeypatch, CONTENT)
    (fetch_runtime("litert") / "a.js").unlink()
    with pytest.raises(UserError, match="--fetch"):
        runtime_folder("litert")
    assert (fetch_runtime("litert") / "a.js").is_file()


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("#!/no/such/interpreter\n", "npm cannot be started"),
        ("no program", "npm cannot be started"),
        ("#!/bin/sh\nprintf '\\377\\033[2Jbad\\n' >&2\nexit 1\n", r"npm: .*x1b\[2Jbad"),
        ("#!/bin/sh\nread answer\necho asked >&2; exit 1\n", "asked"),
    ],
)
def test_an_odd_npm_is_explained(
    script: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "npm").write_text(script)
    (tmp_path / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=said):
        fetch_runtime("litert")


def test_an_archive_that_is_no_file_is_refused(tmp_path: Path) -> None:
    by_hand = tmp_path / "cache" / "web" / "x-a-1.2.3.tgz"
    by_hand.parent.mkdir(parents=True)
    by_hand.symlink_to(tmp_path / "secret")
    (tmp_path / "secret").write_text("secret")
    with pytest.raises(UserError, match="unexpected content") as caught:
        fetch_runtime("litert")
    assert "secret" not in str(caught.value).replace(str(tmp_path), "")
