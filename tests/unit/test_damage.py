"""Single damages to a finished run: all are noticed, and what ships or decides is made again."""

from __future__ import annotations

import json
import random
import shutil
import tarfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

import hwnas
from hwnas.cli.main import main
from hwnas.core.commit import Commit, commit_file
from hwnas.core.errors import UserError
from hwnas.core.history import store
from hwnas.core.rundir import NewSettings, RunDir, StageRecord
from hwnas.core.store import file_hash
from hwnas.core.versions import Transition
from hwnas.devices.spec import load_device
from hwnas.interfaces import DataIdentity, DataInfo
from hwnas.latency.plan import write_plan
from hwnas.latency.sections import ProfileConfig
from hwnas.pipeline.artifacts import Artifacts
from hwnas.pipeline.outcomes import DataRecord, SeenData
from tests.bundles import kit_module
from tests.old_runs import RUNS, unpacked_run

FINISHED = RUNS / "finished.tar.xz"
N_DAMAGES = 80
UNWATCHED = (".lock", "report.html")  # the report is made anew by every run


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run whose files this version has noted."""
    run = unpacked_run("finished", tmp_path_factory.mktemp("runs"))
    again(run)
    return run


def again(run: Path) -> None:
    """The whole run, once more."""
    hwnas.run(str(run / "config.yaml"), folder=run, report_only=True)


def watched(run: Path) -> list[Path]:
    return [p for p in sorted(run.rglob("*")) if p.is_file() and p.name not in UNWATCHED]


def damage(path: Path, how: str, stream: random.Random) -> None:
    data = bytearray(path.read_bytes())
    if how == "deletion":
        path.unlink()
        return
    if how == "tail":
        del data[-max(1, len(data) // stream.choice((2, 10, 1000))) :]
    elif how == "zeros":
        at = stream.randrange(len(data))
        data[at : at + 512] = bytes(len(data[at : at + 512]))
    else:
        data[stream.randrange(len(data))] ^= 1 << stream.randrange(8)
    path.write_bytes(data)


def noticed(run: Path) -> list[str]:
    """Files that `check` names, or the error that it ends with."""
    try:
        return [row["file"] for row in hwnas.check(run)]
    except UserError as error:
        return [str(error)]


def test_a_finished_run_is_not_damaged(finished: Path) -> None:
    found = hwnas.check(finished)
    assert len(found) == 0 and found.facts["fix"] is None
    assert found.facts["hashed"] + found.facts["parsed"] >= len(watched(finished)) - 3


def test_every_single_damage_is_noticed(finished: Path) -> None:
    files, unnoticed, kinds = watched(finished), [], Counter[str]()
    for number in range(N_DAMAGES):
        stream = random.Random(f"damage/{number}")
        path, how = stream.choice(files), stream.choice(("bit", "tail", "zeros", "deletion"))
        content = path.read_bytes()
        damage(path, how, stream)
        is_changed = not path.exists() or path.read_bytes() != content
        if is_changed and not any(path.name in one for one in noticed(finished)):
            unnoticed.append(f"{number}: {how} of {path.relative_to(finished)}")
        kinds[how] += is_changed
        path.write_bytes(content)
    assert not unnoticed
    assert sum(kinds.values()) >= 60 and len(kinds) == 4


@pytest.fixture
def settings_only(finished: Path, tmp_path: Path) -> Path:
    """A run folder with records of settings and data, and no files under a hash of the ledger."""
    folder = tmp_path / "run"
    shutil.copytree(finished / "outside", folder / "outside")
    for name in ("config.yaml", "env.json", "search/main/config.yaml"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(finished / name, folder / name)
    files, parts = {"all": {"ant/1.jpg": "0" * 32}}, dict.fromkeys(("train", "val", "test"), "all")
    identity = DataIdentity(("ant", "bee"), files, parts)
    n_images = dict.fromkeys(parts, 1)
    info = DataInfo("photos", ("ant", "bee"), (0.5,), (0.5,), 8, n_images, identity.digests)
    artifacts = Artifacts(RunDir(folder))
    artifacts.data.write(DataRecord((SeenData("a" * 32, None, info, None),), 0))
    artifacts.data_files("a" * 32).write(identity)
    artifacts.run.record("train", StageRecord("0" * 16, "done", {}, 1.0, data="0" * 32))
    artifacts.run.journal("evaluation", {})
    change_settings(folder)
    commit_file(folder).write(Commit(texts={"superseded/left": None}))
    return folder


def change_settings(folder: Path) -> None:
    """Two changes of settings: two entries of the history."""
    text = (folder / "config.yaml").read_text()
    for number in (1, 2):
        before = {"config.yaml": text}
        settings = NewSettings({"config.yaml": f"{text}# {number}\n"}, before, f"hwnas {number}")
        run = replace(RunDir(folder), settings=settings)
        transition = Transition(run)
        assert store(transition, run) == number
        transition.commit()
    (folder / "config.yaml").write_text(text)


def damaged(content: bytes, name: str) -> list[bytes | None]:
    """The content with one flipped bit (30 places), cut, with zeros, and None: deleted."""
    stream, half = random.Random(name), len(content) // 2
    at_start = [(at, bit) for at in (0, 1) for bit in range(8)]
    anywhere = [(stream.randrange(len(content)), stream.randrange(8)) for _ in range(14)]
    flipped = [
        content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :]
        for at, bit in at_start + anywhere
    ]
    return [*flipped, content[:-1], content[:half], b"", content[:half] + bytes(half), None]


def test_every_damage_of_a_file_without_a_hash_in_the_ledger_is_noticed(
    settings_only: Path,
) -> None:
    assert not hwnas.check(settings_only)
    files = [path for path in watched(settings_only) if path.suffix in (".json", ".yaml")]
    n_files = 2 + 1 + 1 + 1 + 3 + 1 + 2 + 1
    assert len(files) == n_files, "config, env, data, identity, outside, ledger, history, commit"
    unnoticed = []
    for path in files:
        content = path.read_bytes()
        for one in damaged(content, path.name):
            if one is None and path.name == "commit.json":
                continue  # without it, there was no such change
            path.unlink() if one is None else path.write_bytes(one)
            if not any(path.name in name for name in noticed(settings_only)):
                unnoticed.append(f"{path.name}: {one!r:.60}")
            path.write_bytes(content)
    assert not unnoticed


def test_a_config_that_is_no_yaml_is_one_row(finished: Path) -> None:
    path = finished / "config.yaml"
    content = path.read_bytes()
    path.write_bytes(b"a: [")
    assert [row["file"] for row in hwnas.check(finished)] == [str(path)]
    path.write_bytes(content)


def test_an_edited_config_is_named_and_still_runs(
    finished: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = finished / "config.yaml"
    content = path.read_bytes()
    path.write_bytes(content + b"# mine\n")
    (row,) = hwnas.check(finished)
    assert row["file"] == str(path) and "changed by hand" in row["problem"]
    again(finished)
    assert f"{path}: changed by hand" in caplog.text
    assert path.read_bytes() == content and not hwnas.check(finished)


def test_edited_settings_of_a_search_are_named_when_they_are_used(
    finished: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = finished / "search/main/config.yaml"
    content = path.read_bytes()
    hwnas.report(finished, out=finished / "report.html")
    assert "changed by hand" not in caplog.text
    path.write_bytes(content + b"# mine\n")
    hwnas.report(finished, out=finished / "report.html")
    assert caplog.text.count(f"{path}: changed by hand") == 1
    path.write_bytes(content)


def test_a_modified_record_is_an_error_where_it_is_used(settings_only: Path) -> None:
    path = settings_only / "data.json"
    path.write_bytes(path.read_bytes().replace(b'"base_px": 8', b'"base_px": 9'))
    with pytest.raises(UserError, match=r"was modified[\s\S]*data.json[\s\S]*put back a copy"):
        hwnas.status(settings_only)


def test_records_of_earlier_versions_have_no_seal(tmp_path: Path) -> None:
    assert not hwnas.check(unpacked_run("finished", tmp_path))


@pytest.mark.parametrize("part", ["bundles", "search/main/fronts", "search/main/archive.bin"])
def test_what_ships_or_is_read_later_makes_its_stage_unfinished(part: str, finished: Path) -> None:
    path = finished / part
    aside = path.with_name("aside")
    path.rename(aside)
    try:
        status = {row["stage"]: row["status"] for row in hwnas.status(finished)}
        stage = "verify/main" if part == "bundles" else "search/main"
        assert status[stage] == "continues"
        stages = list(status)
        assert {status[before] for before in stages[: stages.index(stage)]} == {"done"}
    finally:
        aside.rename(path)
    assert {row["status"] for row in hwnas.status(finished)} == {"done"}


def test_a_stage_with_damaged_files_is_not_kept_as_a_version(finished: Path) -> None:
    """`check` would name files for ever that no command can bring back."""
    path = finished / "bundles" / "main" / "local" / "model.onnx"
    content, run = path.read_bytes(), RunDir(finished)
    record = run.ledger()["verify/main"]
    for damaged in (False, True):
        if damaged:
            path.write_bytes(content[:-1])
        transition = Transition(run)
        folder = transition.set_aside("verify/main", ["bundles/main"])
        facts = [name for name in transition._texts if name.startswith(f"{folder}/")]
        assert bool(facts) is not damaged and record.state == "done"
    path.write_bytes(content)


def test_a_timed_model_is_compared_with_its_plan(finished: Path) -> None:
    folder = finished / "tables" / "local"
    plan = json.loads((folder / "plan.json").read_text())
    model = folder / plan["items"][0]["file"]
    model.parent.mkdir(exist_ok=True)
    model.write_bytes(b"another model")
    assert [row["file"] for row in hwnas.check(finished)] == [str(model)]
    model.unlink()  # as `hwnas clean` does
    assert not hwnas.check(finished)


def test_a_damaged_model_is_made_again_before_it_is_timed(tmp_path: Path) -> None:
    """Models are a cache: the kit refuses others than those of the plan, and profiling mends them.

    So `run` need not look at them; `check` does.
    """
    bench, models = kit_module("bench"), {"a": b"a model", "b": b"another model"}
    given = load_device("local"), tmp_path, ProfileConfig()
    plan = write_plan(models, *given, seed=0)
    (damaged,) = tmp_path.glob("models/a.*")
    for content in (b"a modex", b"", None):
        damaged.unlink() if content is None else damaged.write_bytes(content)
        with pytest.raises((bench.KitError, OSError), match=damaged.name):
            bench.load_plan(plan.path)
        assert write_plan(models, *given, seed=0) == plan
        assert damaged.read_bytes() == b"a model" and bench.load_plan(plan.path)


def test_changed_raw_timings_are_told_and_nothing_is_made_again(
    finished: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (path,) = (finished / "tables" / "local").glob("results-*.jsonl")
    content, table = path.read_bytes(), file_hash(finished / "tables" / "local.json")
    path.write_bytes(content[:-10])
    again(finished)
    assert str(path) in caplog.text and "was changed or removed" in caplog.text
    assert file_hash(finished / "tables" / "local.json") == table
    path.write_bytes(content)


def test_the_verb_exits_3_and_names_the_way_out(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = finished / "bundles" / "main" / "local" / "model.onnx"
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(SystemExit) as ended:
        main(["check", str(finished)])
    out, err = capsys.readouterr()
    assert ended.value.code == 3 and "model.onnx" in out and f"--run {finished}" in err
    path.write_bytes(content)


def test_a_damaged_ledger_says_how_to_go_on(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    shutil.copy(finished / "config.yaml", folder)
    text = (finished / "stages.json").read_text()
    for content in (text.replace('"seconds": ', '"seconds": 1', 1), text[:-20], "{}", ""):
        (folder / "stages.json").write_text(content)
        with pytest.raises(UserError, match=r"remove it: the next `hwnas run`"):
            RunDir(folder).ledger()
        assert [Path(row["file"]).name for row in hwnas.check(folder)] == ["stages.json"]


def test_a_broken_line_of_the_journal_says_how_to_go_on(finished: Path) -> None:
    path = finished / "journal.jsonl"
    content = path.read_bytes()
    first, _, rest = content.partition(b"\n")
    try:
        path.write_bytes(first[:-5] + b"\n" + rest)
        with pytest.raises(UserError, match=r"journal.jsonl:1[\s\S]*fix: remove this line"):
            list(RunDir(finished).journaled("evaluation"))
        path.write_bytes(rest)
        assert {row["status"] for row in hwnas.status(finished)} == {"done"}
    finally:
        path.write_bytes(content)


def test_a_file_that_a_verb_uses_is_compared_first(finished: Path) -> None:
    path = finished / "predictor" / "model.safetensors"
    content = bytearray(path.read_bytes())
    path.write_bytes(content[:-8] + b"\0\0\0\0\0\0\xf0?")
    with pytest.raises(UserError, match=r"was modified[\s\S]*predictor fit"):
        hwnas.predictor_predict(finished, ["largest"])
    path.write_bytes(content)


def test_records_of_earlier_versions_have_no_hashes_of_other_files(finished: Path) -> None:
    with tarfile.open(FINISHED) as archive:
        member = archive.extractfile("finished/stages.json")
        assert member is not None
        old = json.load(member)
    assert all("kept" not in record for record in old["stages"].values())
    assert all(record.grown for record in RunDir(finished).ledger().values() if len(record.owns))


def test_help_has_the_verb() -> None:
    from hwnas.cli.main import app

    assert "check" in CliRunner().invoke(app, ["--help"]).stdout
