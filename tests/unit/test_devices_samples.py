"""Samples on a phone: whose they are, and that none is lost or taken for another's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hwnas.core.errors import UserError
from hwnas.core.store import read_jsonl
from hwnas.latency.samples import read_samples
from tests.boards import Phone, fake_arm64_phone
from tests.unit.test_devices_adb import Acts, opened, run

EMPTY_LINE = b'{"seconds":0,"turns":[],"preempted":[]}\n'


@pytest.fixture
def phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Phone:
    return fake_arm64_phone(tmp_path, monkeypatch, look_s=0.02)


def changed(path: Path, **fields: object) -> None:
    header, *lines = path.read_text().splitlines()
    other = json.dumps({**json.loads(header), **fields}, separators=(",", ":"))
    path.write_text("\n".join([other, *lines]) + "\n")


@pytest.mark.parametrize("kind", ["another plan", "garbage"])
@pytest.mark.parametrize("has_ours", [True, False])
def test_results_of_others_on_the_phone_are_set_aside(
    kind: str, has_ours: bool, phone: Phone, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    transport, plan = opened(phone, tmp_path)
    run(transport, plan)
    ours = plan.results.read_bytes()
    (there,) = phone.folder.rglob("results.jsonl")
    changed(there, plan_hash="0" * 16)
    foreign = there.read_bytes() * 2 if kind == "another plan" else b"\0" * len(ours) * 3
    there.write_bytes(foreign)
    if not has_ours:
        plan.results.unlink()
    run(transport, plan)
    assert "has samples of another plan, or cannot be read" in caplog.text
    (aside,) = there.parent.glob("aside-*.jsonl")
    assert aside.read_bytes() == foreign and aside.name in caplog.text
    read_samples(plan)
    assert not has_ours or plan.results.read_bytes().startswith(ours)


def test_another_folder_of_samples_is_timed_anew(
    phone: Phone, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As on this machine. Neither folder loses what it has begun, also if they take turns."""
    long = {"rounds": 10**6, "time_budget_s": 60}
    transport, first = opened(phone, tmp_path / "first", **long)
    with pytest.raises(KeyboardInterrupt):
        run(transport, first, Acts("timing", interrupt))
    (there,) = phone.folder.rglob("results.jsonl")
    begun = there.read_bytes()
    kept = begun + EMPTY_LINE  # samples that are not home yet
    there.write_bytes(kept)

    other, second = opened(phone, tmp_path / "other", **long | {"time_budget_s": 0.1})
    assert second.hash == first.hash and "aside" not in caplog.text
    run(other, second)
    assert f"results folder than {second.results.parent}. They are kept" in caplog.text
    assert "starts from the beginning" in caplog.text and "continues from" not in caplog.text
    (aside,) = there.parent.glob("aside-*.jsonl")
    assert aside.name in caplog.text and aside.read_bytes() == kept
    assert second.results.read_bytes().splitlines()[0] != begun.splitlines()[0]
    read_samples(second)

    spent_s = sum(line.get("seconds", 0) for line in read_jsonl(first.results))
    transport, first = opened(phone, tmp_path / "first", rounds=10**6, time_budget_s=spent_s + 0.1)
    run(transport, first)
    assert (
        first.results.read_bytes().startswith(kept)
        and "timing continues from the samples in " in caplog.text
    )
    (aside,) = there.parent.glob("aside-*.jsonl")
    assert aside.read_bytes() == second.results.read_bytes()
    first.results.unlink()  # a folder without its samples begins again, too
    run(transport, first)
    assert not first.results.read_bytes().startswith(begun)


def interrupt() -> None:
    raise KeyboardInterrupt


def test_samples_that_do_not_continue_ours_never_replace_them(phone: Phone, tmp_path: Path) -> None:
    transport, plan = opened(phone, tmp_path)
    run(transport, plan)
    (there,) = phone.folder.rglob("results.jsonl")
    ours = plan.results.read_bytes()
    header, rest = ours.split(b"\n", 1)
    there.write_bytes(header + b"\n" + EMPTY_LINE + rest)
    with pytest.raises(UserError, match="do not continue"):
        run(transport, plan)
    assert plan.results.read_bytes() == ours


def test_a_folder_in_place_of_samples_is_not_copied(phone: Phone, tmp_path: Path) -> None:
    """`adb pull` copies folders, too."""
    adb_file = phone.folder.parent / "bin" / "adb"
    adb_file.write_text(adb_file.read_text().replace("pull) cp", "pull) cp -r"))
    transport, plan = opened(phone, tmp_path)
    run(transport, plan)
    ours = plan.results.read_bytes()
    (there,) = phone.folder.rglob("results.jsonl")
    (runtime,) = (phone.folder / "hwnas-kit").glob("runtime-*")
    (runtime / "python3").write_text(f"rm -rf {there}; mkdir {there}; touch {there}/theirs")
    with pytest.raises(UserError, match="are not in a file"):
        run(transport, plan)
    assert plan.results.read_bytes() == ours
    plan.results.unlink()
    with pytest.raises(UserError, match=r"are not in a file|failed"):
        run(transport, plan)
    (left,) = [path for path in plan.results.parent.iterdir() if "results" in path.name]
    assert left == plan.results and left.read_bytes() == b""
