"""`hwnas references --run`: in one plan with the winners, resumable, in the report."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

import hwnas
from hwnas.core.errors import UserError
from hwnas.core.progress import silent
from hwnas.pipeline.graph import stages_of
from hwnas.pipeline.opening import open_project
from hwnas.pipeline.plan import plan_stages

NETWORK = "mobilenetv3_small_050"
FEW: dict[str, Any] = {
    "search.references.min_rounds": 2,
    "search.references.time_budget_s": 0.0,
}


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(folder, tmp_path_factory.mktemp("references") / "run"))


def stages(run: Path, **changes: Any) -> dict[str, tuple[str, Any]]:
    """Status and settings of every stage."""
    with open_project(
        run, changes=changes, progress_for=lambda _: silent, command="test", read_only=True
    ) as project:
        plans = plan_stages(stages_of(project), project.run)
    return {plan.stage.name: (plan.status, plan.stage.settings) for plan in plans}


def test_references_add_a_stage_and_leave_the_others_as_they_are(run: Path) -> None:
    before, after = stages(run), stages(run, **{"search.references": {}})
    assert {name: after[name] for name in before} == before
    assert {status for status, _ in before.values()} == {"done"}
    assert after.keys() - before.keys() == {"references/main"}


def test_a_wrong_name_is_refused_before_anything_is_stored(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", offline)
    before = (run / "config.yaml").read_bytes()
    with pytest.raises(UserError, match="did you mean 'lcnet_150'"):
        hwnas.references(run=run, names=["lcnet_101"])
    with pytest.raises(UserError, match=r"(?s)weights of timm:lcnet_050.ra2_in1k are not on this"):
        hwnas.references(run=run, names=[NETWORK], train=["lcnet_050.ra2_in1k"])
    with pytest.raises(UserError, match="no device is given"):
        hwnas.references()
    assert (run / "config.yaml").read_bytes() == before


def test_they_are_timed_on_every_device_beside_its_winner(run: Path) -> None:
    search = (run / "search/main/result.json").read_bytes()
    found = hwnas.references(
        run=run,
        names=[NETWORK],
        resolutions=[32],
        train=["lcnet_035"],
        settings={**FEW, "search.references.start": "scratch", "search.references.epochs": 1},
    )
    devices = {"local", "local_int8"}
    rows = {(row["network"], row["device"]): row for row in found}
    assert {device for _, device in rows} == set(found.facts["winner_ms"]) <= devices
    assert all(row["measured_ms"] > 0 for row in found)
    trained = [row for row in found if row["test_top1"] is not None]
    assert {row["network"] for row in trained} == {"lcnet_035"}
    for device in found.facts["winner_ms"]:
        plan = json.loads((run / f"search/main/references/timings/{device}/plan.json").read_text())
        ids = [item["id"] for item in plan["items"]]
        assert f"{NETWORK}-32px" in ids and "winner" in ids
        assert sum(name.startswith("net-") for name in ids) > 1  # networks of the table: the pace
        assert not (run / f"search/main/references/timings/{device}/models").exists()  # large
    assert (run / "search/main/result.json").read_bytes() == search
    before = {p: p.stat().st_mtime_ns for p in (run / "search/main/references").rglob("*")}
    again = hwnas.references(run=run)
    assert list(again) == list(found)
    assert {p: p.stat().st_mtime_ns for p in (run / "search/main/references").rglob("*")} == before


def test_the_report_says_what_else_is_as_fast(run: Path) -> None:
    text = Path(hwnas.report(run)).read_text()
    assert "Published networks on local" in text
    assert re.search(r"On local(, at the latency of the winner| none of these networks)", text)
    assert NETWORK in text and "test top-1, trained here" in text
