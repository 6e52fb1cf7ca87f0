"""A device that hwnas cannot reach: pack, run the kit there, import; and tables carried over."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hwnas.core.errors import UserError
from hwnas.core.progress import silent
from hwnas.core.store import read_json
from hwnas.devices.spec import load_device
from hwnas.latency.estimator import TableEstimator
from hwnas.latency.plan import Plan, plan_hash
from hwnas.latency.samples import read_samples
from hwnas.latency.sections import ProfileConfig
from hwnas.latency.shipped import latency_table
from hwnas.measure import pack as offline
from hwnas.measure.pack import _Importer, import_results, pack
from hwnas.measure.profile import profile
from hwnas.measure.tables import compare_tables, table_summary
from hwnas.measure.transfer import transfer_table
from hwnas.spaces.mobilenet_tiny import Config, build
from hwnas.spaces.space import SearchSpace
from tests.kit import SizeTransport

QUICK = ProfileConfig(rounds=3, min_rounds=2, hot_samples=3, n_validation=6, warmup_runs=1)


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    """Narrow enough that a profile takes a second."""
    whole = build(Config(resolutions=(8,)), num_classes=4)
    largest = {choice.name: (choice.values[-1],) for choice in whole.choices}
    free = {"stage0.width": (16, 32), "stage1.depth": (1, 3), "stage2.depth": (1, 2)}
    return whole.restrict(largest | free)


@pytest.fixture(scope="module")
def packed(space: SearchSpace, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The zip, and the results that its kit wrote in a folder of its own."""
    folder = tmp_path_factory.mktemp("board")
    archive = folder / "kit.zip"
    pack(space, load_device("local"), QUICK, archive, seed=0)
    zipfile.ZipFile(archive).extractall(folder / "there")
    subprocess.run(
        [sys.executable, "bench.py", "plan.json", "--out", "results.jsonl"],
        cwd=folder / "there",
        check=True,
        capture_output=True,
    )
    return archive, folder / "there" / "results.jsonl"


def test_results_from_elsewhere_become_a_table(space: SearchSpace, packed: tuple[Path, Path]):
    table = import_results(space, load_device("local"), QUICK, packed[1], seed=0)
    codes = space.codes([space.largest(), space.smallest()])
    largest_ms, smallest_ms = TableEstimator(table, space).latency_ms(codes)
    assert largest_ms > smallest_ms > 0
    assert table.source == "measured"
    rows = {row["estimate"]: row for row in table_summary(table)}
    assert set(rows) == {
        "corrected sum",
        "raw sum",
        "line on MACs",
        "forest on op counts",
        "repeat noise",
        "90 % interval, half its width",
    }


def test_the_kit_needs_nothing_of_this_machine(packed: tuple[Path, Path]):
    names = zipfile.ZipFile(packed[0]).namelist()
    assert {"plan.json", "bench.py", "README.md"} <= set(names)
    assert all(not name.startswith("/") and ".." not in name for name in names)
    plan = json.loads(zipfile.ZipFile(packed[0]).read("plan.json"))
    assert {item["file"] for item in plan["items"]} <= set(names)


def test_results_of_another_plan_are_refused(space: SearchSpace, packed: tuple[Path, Path]):
    with pytest.raises(UserError):
        import_results(space, load_device("local"), QUICK, packed[1], seed=1)
    with pytest.raises(UserError, match="no results to import"):
        import_results(space, load_device("local"), QUICK, packed[1].with_name("none"), seed=0)


def test_errors_name_the_file_and_the_device_that_were_given(
    space: SearchSpace, packed: tuple[Path, Path], tmp_path: Path
):
    device, given = load_device("local"), tmp_path / "from the board.jsonl"
    lines = packed[1].read_text().splitlines()
    earlier = json.dumps(json.loads(lines[0]) | {"protocol": "interleaved-1"})
    for made, seed, device_given, words in (
        (lines, 1, device, ("another plan", "repeat the command with the space", "device local")),
        ([earlier, *lines[1:]], 0, device, ("not from the kit of this version", "time the models")),
        (lines[:1], 0, device, ("incomplete", "device local")),
        ([*lines[:2], "no json", *lines[2:]], 0, device, ("from the board.jsonl:3", "local")),
        (
            lines,
            0,
            replace(device, threads=4),
            ("not measured on device 'local'", "threads 4", "threads 1"),
        ),
    ):
        given.write_text("\n".join(made) + "\n")
        with pytest.raises(UserError) as caught:
            import_results(space, device_given, QUICK, given, seed=seed)
        said = str(caught.value)
        assert str(given) in said and all(word in said for word in words), said
        assert "results-" not in said, "a file of ours, which the user does not have"


Change = Callable[[dict[str, Any], list[dict[str, Any]]], object]
LARGE = 123456789123
FIRST = 1  # the first line of turns


def turn_of(lines: list[dict[str, Any]]) -> list[Any]:
    return lines[FIRST]["turns"][0]


HOSTILE: dict[str, Change] = {
    "no header": lambda head, lines: lines.pop(0),
    "header only": lambda head, lines: lines.__delitem__(slice(1, None)),
    "nothing": lambda head, lines: lines.clear(),
    "another plan": lambda head, lines: head.update(plan_hash="0" * 16),
    "another protocol": lambda head, lines: head.update(protocol="interleaved-1"),
    "no host": lambda head, lines: head.pop("host"),
    "a host of lists": lambda head, lines: head.update(host=[]),
    "no cpu": lambda head, lines: head["host"].pop("cpu"),
    "a cpu that is a novel": lambda head, lines: head["host"].update(cpu="x" * 10_000),
    "a cpu that moves the cursor": lambda head, lines: head["host"].update(cpu="\x1b[2J"),
    "a runtime that is a number": lambda head, lines: head.update(runtime=7),
    "an infinite load": lambda head, lines: head["host"].update(load_average=LARGE),
    "nested facts": lambda head, lines: head["host"].update(cpu={"a": {}}),
    "a negative time": lambda head, lines: turn_of(lines).__setitem__(3, -5),
    "no time at all": lambda head, lines: turn_of(lines).__setitem__(3, 0),
    "a fraction": lambda head, lines: turn_of(lines).__setitem__(3, 1.5),
    "a truth": lambda head, lines: turn_of(lines).__setitem__(3, True),
    "a text": lambda head, lines: turn_of(lines).__setitem__(3, "1000"),
    "a time without end": lambda head, lines: turn_of(lines).__setitem__(3, 10**400),
    "an item too many": lambda head, lines: turn_of(lines).__setitem__(1, 10**6),
    "a reference too many": lambda head, lines: turn_of(lines).__setitem__(1, -(10**6)),
    "a round far away": lambda head, lines: turn_of(lines).__setitem__(0, 999_999),
    "a negative round": lambda head, lines: turn_of(lines).__setitem__(0, -1),
    "an endless turn": lambda head, lines: turn_of(lines).extend([1000] * 5000),
    "an empty turn": lambda head, lines: turn_of(lines).__delitem__(slice(2, None)),
    "a turn twice": lambda head, lines: lines.append(lines[FIRST]),
    "a mark outside": lambda head, lines: lines[FIRST]["preempted"].append([0, 99]),
    "a mark before": lambda head, lines: lines[FIRST]["preempted"].append([-1, 0]),
    "turns by name": lambda head, lines: lines[FIRST].update(turns={"a": 1}),
    "warnings of nothing": lambda head, lines: lines.append({"warnings": [7]}),
    "warnings without end": lambda head, lines: lines.append({"warnings": ["x" * 10_000]}),
    "no marks": lambda head, lines: lines[FIRST].pop("preempted"),
    "a list": lambda head, lines: lines.append([]),  # type: ignore[arg-type]
}


@pytest.fixture(scope="module")
def planned(space: SearchSpace, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """The plan that the results belong to, to read them without building it again."""
    folder = tmp_path_factory.mktemp("plan")
    with pytest.raises(UserError, match="no results to import"):
        profile(
            space,
            load_device("local"),
            folder,
            QUICK,
            seed=0,
            transport=_Importer(folder / "none"),
        )
    plan = read_json(folder / "plan.json")
    ids = tuple(item["id"] for item in plan["items"])
    return Plan(folder / "plan.json", folder / "r.jsonl", plan_hash(plan), ids)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_results_are_refused(name: str, planned: Plan, packed: tuple[Path, Path]):
    lines = [json.loads(line) for line in packed[1].read_text().splitlines()]
    planned.results.write_text("".join(json.dumps(line) + "\n" for line in lines))
    read_samples(planned)
    HOSTILE[name](lines[0], lines)
    text = "".join(json.dumps(line) + "\n" for line in lines)
    planned.results.write_text(text.replace(str(LARGE), "1e999"))  # which Python reads as infinity
    with pytest.raises(UserError) as caught:
        read_samples(planned)
    assert "expected" not in str(caught.value.found), "it has a line of its own"
    assert caught.value.fix


@pytest.mark.parametrize(
    "line",
    [
        "not json",
        '{"seconds":1,"turns":[[0,0,NaN,1]],"preempted":[]}',
        '{"seconds":1,"turns":[[0,0,Infinity,1]],"preempted":[]}',
        '{"a":' * 100_000 + "1" + "}" * 100_000,
        "[" * 1_000_000,
    ],
)
def test_lines_that_are_no_clean_json_are_refused(
    line: str, planned: Plan, packed: tuple[Path, Path]
):
    planned.results.write_text(packed[1].read_text() + line + "\n")
    with pytest.raises(UserError) as caught:
        read_samples(planned)
    assert len(str(caught.value)) < 2000


def test_results_may_come_in_a_zip(space: SearchSpace, packed: tuple[Path, Path], tmp_path: Path):
    archive = tmp_path / "there.zip"
    with zipfile.ZipFile(archive, "w") as stream:
        stream.write(packed[1], "../../etc/results.jsonl")  # a name that leads nowhere
        stream.writestr("models/a.onnx", b"")
    table = import_results(space, load_device("local"), QUICK, archive, seed=0)
    assert table.source == "measured"
    assert not list(tmp_path.parent.parent.rglob("etc/results.jsonl"))


def test_hostile_zips_are_refused(planned: Plan, tmp_path: Path, monkeypatch):
    def zip_of(**members: bytes) -> Path:
        archive = tmp_path / f"{len(list(tmp_path.iterdir()))}.zip"
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as stream:
            for name, data in members.items():
                stream.writestr(f"{name}.jsonl", data)
        return archive

    monkeypatch.setattr(offline, "MAX_RESULTS_BYTES", 1 << 20)
    bomb = zip_of(results=b"0" * (2 << 20))
    assert bomb.stat().st_size < 1 << 14
    lying = bytearray(bomb.read_bytes())
    at = lying.index(b"PK\x01\x02") + 24  # the size that the directory states
    lying[at : at + 4] = (10).to_bytes(4, "little")
    torn = zip_of(results=b"abc" * 1000)
    broken = bytearray(torn.read_bytes())
    broken[45:60] = b"\xff" * 15
    for name, data, word in (
        ("bomb.zip", bomb.read_bytes(), "too large"),
        ("lying.zip", bytes(lying), "."),
        (
            "broken.zip",
            bytes(broken),
            r"cannot read[\s\S]*a \.zip that contains one[\s\S]*from the device again",
        ),
        ("two.zip", zip_of(a=b"", b=b"").read_bytes(), "2 .jsonl files"),
        ("none.zip", zip_of().read_bytes(), "0 .jsonl files"),
        ("large.jsonl", b"x" * (2 << 20), "too large"),
    ):
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(UserError, match=word):
            _Importer(path).run_bench(planned.path, planned.results, progress=silent)
            read_samples(planned)


def test_a_kit_refuses_a_plan_that_was_tampered_with(packed: tuple[Path, Path], tmp_path: Path):
    """What the device runs is what was packed: other models, or paths out of it, are refused."""
    zipfile.ZipFile(packed[0]).extractall(tmp_path)
    plan = json.loads((tmp_path / "plan.json").read_text())
    (tmp_path / plan["items"][0]["file"]).write_bytes(b"another model")
    command = [sys.executable, "bench.py", "plan.json", "--out", "r.jsonl"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "sha256 differs" in done.stderr


def test_a_table_is_carried_over_with_its_own_validation(space: SearchSpace, tmp_path: Path):
    device, board = load_device("local"), SizeTransport()
    source = profile(space, device, tmp_path / "profile", QUICK, seed=0, transport=board)
    carried = transfer_table([source], space, device, tmp_path / "samples", QUICK, transport=board)
    assert carried.source == "transferred"
    assert carried.facts["transferred_from"] == "local"
    relation = compare_tables(source, carried)
    assert relation["n_common"] == len(source.rows)
    assert relation["spearman"] > 0.9  # rows stay close to the source's proportions
    correction = carried.corrections[space.id]
    assert correction.n_fit == len(correction.validation.nets) == carried.facts["n_networks_timed"]
    assert 0 < correction.interval_fraction < 0.5
    codes = space.codes([space.largest()])
    # the same machine: what was carried over forecasts about what was measured
    forecast = TableEstimator(carried, space).latency_ms(codes)[0]
    assert forecast == pytest.approx(TableEstimator(source, space).latency_ms(codes)[0], rel=0.1)


def test_an_unknown_table_says_how_to_make_one():
    with pytest.raises(UserError, match="hwnas profile"):
        latency_table("pixel9")
