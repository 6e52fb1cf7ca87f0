"""A device that hwnas cannot reach: pack, run the kit there, import; and tables carried over."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from hwnas.core.errors import UserError
from hwnas.devices.spec import load_device
from hwnas.latency.config import ProfileConfig
from hwnas.latency.estimator import TableEstimator
from hwnas.pipeline.offline import import_results, pack
from hwnas.pipeline.tables import compare_tables, find_table, table_summary, transfer_table
from hwnas.spaces.mobilenet_tiny import Config, build
from hwnas.spaces.space import SearchSpace

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
    assert set(rows) == {"forecast", "raw sum", "line on MACs", "repeat noise"}


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


def test_hostile_results_are_refused(space: SearchSpace, packed: tuple[Path, Path], tmp_path: Path):
    good = packed[1].read_text().splitlines(keepends=True)
    for name, lines in {
        "no header": good[1:],
        "garbage": [good[0], "not json\n", *good[1:]],
        "nothing": [],
        "header only": good[:1],
    }.items():
        path = tmp_path / name
        path.write_text("".join(lines))
        with pytest.raises(UserError):
            import_results(space, load_device("local"), QUICK, path, seed=0)


def test_a_table_is_carried_over_with_its_own_validation(
    space: SearchSpace, packed: tuple[Path, Path], tmp_path: Path
):
    source = import_results(space, load_device("local"), QUICK, packed[1], seed=0)
    carried = transfer_table(source, space, load_device("local"), tmp_path / "samples", QUICK)
    assert carried.source == "transferred"
    assert carried.facts["transferred_from"] == "local"
    relation = compare_tables(source, carried)
    assert relation["n_common"] == len(source.rows)
    assert relation["spearman"] == pytest.approx(1)  # rows keep the source's proportions
    codes = space.codes([space.largest()])
    # the same machine: what was carried over forecasts about what was measured
    forecast = TableEstimator(carried, space).latency_ms(codes)[0]
    assert forecast == pytest.approx(TableEstimator(source, space).latency_ms(codes)[0], rel=0.5)


def test_an_unknown_table_says_how_to_make_one():
    with pytest.raises(UserError, match="hwnas profile"):
        find_table("pixel9")
