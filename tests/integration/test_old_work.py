"""What earlier versions left behind stays valid: run folders, bundles, tables, ids and hashes.

The files were made at commit d072484; see tests/golden/runs/README.md.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from hwnas.core.overrides import assignments
from hwnas.core.progress import silent
from hwnas.core.resources import resource
from hwnas.core.rng import rng
from hwnas.core.rundir import RunDir
from hwnas.core.store import content_hash
from hwnas.latency.table import LatencyTable
from hwnas.measure.bundle_check import verify_bundle
from hwnas.measure.limits import CheckSettings
from hwnas.pipeline.config import load_config, read_config_data
from hwnas.pipeline.engine import execute
from hwnas.pipeline.graph import stages_of
from hwnas.pipeline.opening import open_project
from hwnas.pipeline.plan import plan_stages
from hwnas.pipeline.project import Project
from hwnas.spaces.cost import cost
from hwnas.spaces.graphs import graph
from hwnas.spaces.index import enumerate_ops
from hwnas.spaces.load import build_space
from hwnas.spaces.lowering import network_key, slot_names
from hwnas.studies.run_report import write_run_report
from tests.machine import has_8_bit_products
from tests.old_runs import unpacked_run

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
KNOWN = json.loads((GOLDEN / "geometry_and_stages_v1.json").read_text())

EARLIER = {
    "predictor.training.loss": "both"
}  # a default then; `test_changed_defaults` has the rest

OldRun = Callable[[str], Path]


@pytest.fixture
def old_run(tmp_path: Path) -> OldRun:
    """Unpacks one of the old run folders; returns where."""

    def unpack(name: str) -> Path:
        return unpacked_run(name, tmp_path)

    return unpack


def _statuses(root: Path) -> dict[str, str]:
    with open_project(root, progress_for=lambda s: silent, command="test", read_only=True) as p:
        return {plan.stage.name: plan.status for plan in plan_stages(stages_of(p), p.run)}


def test_a_finished_run_folder_is_done(old_run: OldRun) -> None:
    statuses = _statuses(old_run("finished"))
    assert len(statuses) == 10
    assert set(statuses.values()) == {"done"}


def test_results_of_a_finished_run_are_read(old_run: OldRun) -> None:
    root = old_run("finished")
    with open_project(root, progress_for=lambda s: silent, command="test", read_only=True) as p:
        results = p.files.results.read()
        winner = p.files.main_search.result.read().winner
        assert {row.name for row in results.networks} > {"winner", "largest", "random search"}
        assert results.networks[0].arch == winner.arch
        remeasured = p.files.main_search.remeasurement.read_if_there()
        assert remeasured is not None and remeasured.retimed
        assert len(p.files.main_search.archive(p.space)) > 0
        table = p.estimator("local").table
        assert table.corrections[p.space.id].validation.nets
        assert write_run_report(p).stat().st_size > 10_000
        report = verify_bundle(
            root / "bundles" / "main" / "local",
            data=p.data,
            settings=CheckSettings(p.config.profile, p.config.verify, p.config.seed),
            with_latency=False,
            progress=silent,
        )
    # its int8 file has weights of 8 bits, whose products saturate on x86 without VNNI
    exempt = () if has_8_bit_products() else ("model.int8.onnx",)
    assert not [line for line in report.failed if not line.startswith(exempt)]
    assert len(report.models) == 3


def test_training_goes_on_from_the_old_checkpoint(old_run: OldRun) -> None:
    root = old_run("half_train")
    assert _statuses(root)["train"] == "continues"
    steps: list[int] = []

    def progress_for(stage: str) -> Callable[..., None]:
        return lambda done, total, note="": steps.append(done)

    with open_project(root, progress_for=progress_for, command="test") as p:
        execute(stages_of(p), p.run, only=["train"])
    assert min(steps) >= 8  # of 24; checkpoints 4 and 8 are whole
    weights = load_file(root / "checkpoints" / "supernet.safetensors")
    reference = load_file(old_run("finished") / "checkpoints" / "supernet.safetensors")
    assert {k: v.shape for k, v in weights.items()} == {k: v.shape for k, v in reference.items()}
    assert _statuses(root)["train"] == "done"


def test_a_search_goes_on_and_finds_what_the_old_one_found(
    old_run: OldRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    # this machine may be much slower than the one that the table is from
    monkeypatch.setattr("hwnas.pipeline.stages.search.can_judge", lambda pace: True)
    root = old_run("half_search")
    assert _statuses(root)["search/main"] == "continues"
    before = (root / "journal.jsonl").read_text().splitlines()
    with open_project(root, progress_for=lambda s: silent, command="test") as p:
        execute(stages_of(p), p.run, only=["search/main"])
        found = p.files.baseline.result.read()  # the search itself depends on timings made now
    after = (root / "journal.jsonl").read_text().splitlines()
    assert after[: len(before)] == before  # nothing evaluated before is evaluated again
    rows = [json.loads(line) for line in after]
    scored = [(row["context"], tuple(row["evaluation"]["arch"]["codes"])) for row in rows]
    assert len(scored) == len(set(scored))
    with open_project(
        old_run("finished"), progress_for=lambda s: silent, command="test", read_only=True
    ) as p:
        then = p.files.baseline.result.read()
    assert found.winner.arch == then.winner.arch


@pytest.mark.parametrize("label", sorted(KNOWN["stages"]))
def test_stages_of_shipped_configs_hash_as_before(
    label: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = KNOWN["stages"][label]
    data, where = read_config_data(case["config"])
    name = data["data"]["name"] if isinstance(data["data"], dict) else data["data"]
    if name == "npz_jpeg":
        folder = Path(os.environ.get("HWNAS_TEST_DATA", GOLDEN.parents[2] / "shared" / "data"))
        if not folder.is_dir():
            pytest.skip(f"no real data at {folder} (set HWNAS_TEST_DATA)")
        monkeypatch.setenv("HWNAS_DATA", str(folder))
    config = load_config(data, EARLIER | assignments(case["set"]), where=where)
    project = Project(RunDir(Path("nowhere")), config, lambda stage: silent)
    later = ("references/",)  # a stage that came later leaves those of before as they were
    stages = [stage for stage in stages_of(project) if not stage.name.startswith(later)]
    assert {s.name: content_hash(s.settings) for s in stages} == case["settings"]
    assert {s.name: list(s.needs) for s in stages} == case["needs"]
    assert {s.name: list(s.outputs) for s in stages} == case["outputs"]


@pytest.mark.parametrize("name", sorted(KNOWN["spaces"]))
def test_spaces_lower_as_before(name: str) -> None:
    known: dict[str, Any] = KNOWN["spaces"][name]
    space = build_space(name, num_classes=10)
    assert (space.id, space.fingerprint) == (known["id"], known["fingerprint"])
    assert space.size() == known["size"]
    assert content_hash(list(slot_names(space))) == known["slots"]
    assert content_hash([op.key for op in enumerate_ops(space)]) == known["ops"]
    archs = [
        space.largest(),
        space.smallest(),
        *(space.arch(row) for row in space.sample(16, rng=rng(0, "golden"))),
    ]
    codes = space.codes(archs)
    assert codes.tolist() == known["codes"]
    assert [arch.key for arch in archs] == known["arch_keys"]
    assert [network_key(space, arch) for arch in archs] == known["network_keys"]
    assert cost(space, codes, "macs").tolist() == known["macs"]
    assert cost(space, codes, "params").tolist() == known["params"]
    if known["peak"] is not None:
        assert cost(space, codes, "peak_memory_bytes").tolist() == known["peak"]
        graphs = [graph(space, arch) for arch in archs]
        shapes = [[[op.key for op in ops], [list(e) for e in edges]] for ops, edges in graphs]
        assert [content_hash(shape) for shape in shapes] == known["graphs"]


@pytest.mark.parametrize("name", sorted(KNOWN["tables"]))
def test_rows_of_shipped_tables_keep_their_keys(name: str) -> None:
    known = KNOWN["tables"][name]
    table = LatencyTable.load(resource("latency_tables", f"{name}.json"))
    assert len(table.rows) >= known["n_rows"]
    if len(table.rows) == known["n_rows"]:
        assert content_hash(sorted(op.key for op in table.rows)) == known["keys"]
    assert set(table.corrections) >= set(known["corrections"])
