"""What stages do with a small finished run: what they read, write, show and cost."""

from __future__ import annotations

import os
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch

from hwnas.core.errors import CheckFailed, UserError
from hwnas.core.progress import silent
from hwnas.core.rundir import RunDir
from hwnas.exporters.parity import BatchParity, ParityReport
from hwnas.interfaces import ModelFile
from hwnas.measure.references.settings import ReferencesConfig
from hwnas.measure.references.timing import References
from hwnas.nets import pretrained
from hwnas.nets.extract import extract
from hwnas.nets.subnet import build_subnet
from hwnas.pipeline import foreign_tables, graph, reference_training, start, tuning
from hwnas.pipeline.answers import Answered, Answers
from hwnas.pipeline.disk import weights_bytes
from hwnas.pipeline.format_time import weight
from hwnas.pipeline.outcomes import Exported, NetworkResult
from hwnas.pipeline.plan import Stage
from hwnas.pipeline.project import Project
from hwnas.pipeline.stages import (
    export,
    finetune,
    label,
    predictor,
    profile,
    references,
    search,
    train,
    verify,
)
from hwnas.spaces.lowering import resolution
from hwnas.training import finetune as finetuning
from hwnas.training import standalone
from hwnas.training.averaging import best_average
from hwnas.training.distributed import Ranks
from hwnas.training.images import resize
from tests.probes import PROBES, Bench, timed_verify

LATENCY_SAMPLER = {"name": "attentive", "metric": "latency_ms", "device": "local_int8"}
LATENCY_PAIRS = {"pairs": 2, "prior": {"name": "latency", "device": "local_int8"}}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("bench"))


def look(bench: Bench, **changes: Any) -> Project:
    return bench.look(bench.config({key.replace("__", "."): v for key, v in changes.items()}))


def stages(it: Project) -> dict[str, Stage]:
    return {stage.name: stage for stage in graph.stages_of(it)}


# --- the graph ---------------------------------------------------------------------------------


def test_networks_start_from_the_average_of_the_supernet_before_and_after_its_training(
    bench: Bench,
) -> None:
    """Only if it had starting weights; `init` is needed then."""
    it = look(bench, finetune__average=True, supernet__init="@supernet")
    inherited, arch = start.Inherited.of(it), it.space.largest()
    assert inherited.before is not None
    pair = [extract(net, arch) for net in (inherited.before, inherited.trained)]
    px, calibration = resolution(it.space, arch), it.config.finetune.calibration
    images = it.data.calibration_batches(calibration.n_batches, calibration.batch_size)
    expected = best_average(*pair, [resize(x, px) for x in images], it.data, px=px)
    for name, parameter in inherited.network(arch).named_parameters():
        assert torch.equal(parameter, dict(expected.named_parameters())[name])
    assert stages(it)["finetune/main"].reads == {"supernet.init": bench.file("supernet")}

    for changes in ({"supernet__init": "@supernet"}, {"finetune__average": True}):
        it = look(bench, **changes)
        assert start.Inherited.of(it).before is None
        assert stages(it)["finetune/main"].reads == {}


def test_stages_wait_for_what_they_read(bench: Bench) -> None:
    it = look(bench, search__references={"names": ["resnet18"]})
    profiles = ("profile/local", "profile/local_int8")
    assert {name: stage.needs for name, stage in stages(it).items()} == {
        "profile/local": (),
        "profile/local_int8": (),
        "train": (),
        "label": ("train",),
        "label/trained": (),
        "predictor": ("train", "label", "label/trained"),
        "search/main": (*profiles, "train", "predictor"),
        "finetune/main": ("train", "search/main"),
        "export/main": ("finetune/main",),
        "verify/main": (*profiles, "export/main"),
        "references/main": (*profiles, "finetune/main", "export/main"),
    }


def test_labels_from_a_file_need_neither_supernet_nor_images(bench: Bench) -> None:
    found = stages(look(bench, label__records="@records", label__trained={"n": 0}))["label"]
    assert found.needs == () and found.data is None
    assert set(found.reads) == {"label.records"}
    assert found.cost == "at most 16 labels read"


def test_references_are_no_setting_of_the_search(bench: Bench) -> None:
    changed = stages(look(bench, search__references={"names": ["resnet18"]}))["search/main"]
    other = stages(look(bench, search__top_k=3))["search/main"]
    known = stages(look(bench))["search/main"]
    assert changed.settings == known.settings != other.settings


def test_all_processes_take_part_in_what_they_can_share(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And stages that read a file instead of images do not record the data."""
    seen: dict[str, tuple[bool, bool]] = {}

    def note(
        it: Project, name: str, work: Any, *, together: bool = False, reads_data: bool = True
    ) -> Any:
        seen[name] = (together, reads_data)

    for module in (train, label, predictor, search, finetune, export, verify):
        monkeypatch.setattr(module, "task", note)
    found = stages(look(bench))
    shared = {"train", "label", "label/trained", "search/main"}
    assert seen == {name: (name in shared, True) for name in found if "profile" not in name}
    assert [name for name, stage in found.items() if stage.is_provisional] == ["search/main"]
    stages(
        look(
            bench, label__records="@records", label__trained={"n": 0},
            search__evaluator={"records": "@records"},
        )
    )  # fmt: skip
    assert seen["label"] == seen["search/main"] == (True, False)


@pytest.mark.parametrize(
    ("name", "changes", "n_smallest", "n_largest"),
    [
        ("train", {"train__steps": 0, "supernet__init": "@supernet"}, 0, 1),
        ("train", {}, 0, 1 + 3 * 3),  # 2 checkpoints and one being written, of Adam's 2 moments
        ("finetune/main", {"finetune__epochs": 0}, 4, 1),  # five networks
        ("export/main", {}, 3 + 3 / 4, 1),  # as ONNX, and 3 formats of the winner
        ("verify/main", {}, 2, 0),  # 2 bundles
        ("profile/local", {"profile__n_validation": 8}, 1, 1),
    ],
)
def test_disk_estimates_count_networks(
    bench: Bench, name: str, changes: dict[str, Any], n_smallest: float, n_largest: float
) -> None:
    it = look(bench, **changes)
    smallest, largest = weights_bytes(it)
    expected = n_smallest * smallest + n_largest * largest
    assert stages(it)[name].writes() == pytest.approx(expected, abs=1)


def test_a_supernet_is_about_as_large_as_estimated(bench: Bench) -> None:
    it = look(bench, train__steps=0, supernet__init="@supernet")
    assert 0.8 < stages(it)["train"].writes() / it.files.supernet.stat().st_size < 1


# --- train ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "head_epochs", "classes"), [(0, 0, None), (4, 0, 10), (0, 1, 10), (4, 1, 10)]
)
def test_only_training_accepts_weights_of_other_classes(
    bench: Bench,
    steps: int,
    head_epochs: int,
    classes: int | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[int | None] = []
    monkeypatch.setattr(
        pretrained, "start_from", lambda *_, num_classes, images: seen.append(num_classes)
    )
    it = look(bench, train__steps=steps, train__head_epochs=head_epochs, supernet__init="@supernet")
    start.supernet_at_start(it, [])
    start.supernet_at_start(look(bench), [])  # random weights
    assert seen == [classes]


def test_weights_of_another_network_are_refused_before_anything_runs(bench: Bench) -> None:
    with pytest.raises(UserError):
        stages(look(bench, supernet__init="@teacher"))["train"].check()
    stages(look(bench, supernet__init="@supernet"))["train"].check()


def test_files_that_training_reads(bench: Bench) -> None:
    assert stages(look(bench))["train"].reads == {}
    assert stages(look(bench, supernet__init="shipped"))["train"].reads == {}
    own = stages(look(bench, supernet__init="@supernet"))["train"].reads
    assert own == {"supernet.init": bench.file("supernet")}
    teacher = {"model": "test_efficientnet", "weights": "@teacher"}
    assert set(stages(look(bench, train__teacher=teacher))["train"].reads) == {
        "train.teacher.weights"
    }


@pytest.mark.parametrize(
    ("changes", "devices"),
    [
        ({}, ()),
        ({"train__sampler": LATENCY_SAMPLER | {"metric": "macs"}}, ()),
        ({"train__sampler": LATENCY_SAMPLER}, ("local_int8",)),
        ({"train__ranking": LATENCY_PAIRS}, ("local_int8",)),
        ({"train__sampler": LATENCY_SAMPLER, "train__ranking": LATENCY_PAIRS}, ("local_int8",)),
    ],
)
def test_training_waits_for_tables_that_it_uses(
    bench: Bench, changes: dict[str, Any], devices: tuple[str, ...]
) -> None:
    found = stages(look(bench, **changes))["train"]
    assert found.needs == tuple(f"profile/{name}" for name in devices)
    if devices:
        with pytest.raises(UserError, match="not a device of this run"):
            train.check(look(bench, devices=["local"], search__constraints=[], **changes))


def test_images_for_starting_weights_are_pixels(bench: Bench) -> None:
    it = look(bench)
    found = torch.cat(list(start.start_images(it)))
    info = it.data.info
    assert len(found) == start.START_IMAGES // start.START_BATCH * start.START_BATCH
    assert found.min() == 0 and found.max() == 1  # black and white
    normal = torch.cat(it.data.calibration_batches(len(found) // 32, 32))
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (info.mean, info.std))
    torch.testing.assert_close((found - mean) / std, normal, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("steps", "head_epochs", "is_trained"),
    [(0, 0, False), (4, 0, True), (0, 1, True), (4, 1, True)],
)
def test_it_trains_if_there_is_anything_to_train(
    bench: Bench,
    steps: int,
    head_epochs: int,
    is_trained: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[str] = []

    def trained(it: Project, supernet: Any, progress: Any) -> Any:
        calls.append("trained")
        return supernet

    monkeypatch.setattr(train, "_trained", trained)
    changes = {"train.steps": steps, "train.head_epochs": head_epochs}
    with bench.project(bench.config(changes)) as it:
        it.files.supernet.unlink()
        train.train(it, silent)
        assert it.files.supernet.is_file()
    assert calls == ["trained"] * is_trained


# --- label ---------------------------------------------------------------------------------------


def test_drawn_archs_stay_those_of_runs_before(bench: Bench) -> None:
    it = look(bench)
    known = [one.arch for one in it.files.read_labels("supernet")]
    ends = [it.space.largest(), it.space.smallest()]
    assert [*ends, *label._drawn(it, 14)] == known
    trained = [one.arch for one in it.files.read_labels("trained")]
    assert label._drawn(it, 2) == trained


def test_more_archs_only_append(bench: Bench) -> None:
    it = look(bench)
    found = label._drawn(it, 30)
    assert len(found) == len(set(found)) == 30
    assert found[:5] == label._drawn(it, 5)
    assert not {it.space.largest(), it.space.smallest()} & set(found)


@pytest.mark.parametrize("n", [5, 16, 100])
def test_labels_from_a_file_are_a_sample_of_it(bench: Bench, n: int) -> None:
    it = look(bench, label__records="@records", label__n_archs=n, label__trained={"n": 0})
    known = {one.arch: one.top1 for one in it.files.read_labels("supernet")}
    found = label._recorded(it)
    assert len(found) == min(n, len(known))
    assert {one.arch: one.top1 for one in found}.items() <= known.items()
    assert found == label._recorded(it)


@pytest.mark.parametrize(
    ("size", "text"),
    [(1, "10.0 minutes, extrapolated"), (4, "2.5 minutes on 4 processes, extrapolated")],
)
def test_the_cost_of_stand_alone_labels_is_shared_by_processes(
    bench: Bench, size: int, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standalone, "training_seconds", lambda *_: 600.0)
    it = replace(look(bench, label__trained__n=3), ranks=Ranks(size=size))
    n_images = it.data.info.n_images["train"] // 64 * 64
    found = label.measured_trained_cost(it)
    assert found.startswith(f"1 archs to train stand-alone x {n_images:,} images (1 epochs)")
    assert text in found  # two of the three are in the journal
    assert "nothing to train" in label.measured_trained_cost(look(bench))


def test_labels_of_the_supernet_need_images_for_its_statistics(bench: Bench) -> None:
    calibration = {"n_batches": 1000, "batch_size": 1000}
    with pytest.raises(UserError, match=r"label\.calibration"):
        stages(look(bench, label__calibration=calibration))["label"].check_data()
    read = look(
        bench, label__calibration=calibration, label__records="@records", label__trained={"n": 0}
    )
    stages(read)["label"].check_data()


# --- profile, search, verify ---------------------------------------------------------------------


def test_earlier_samples_are_found_newest_first(bench: Bench) -> None:
    with bench.project(bench.config({})) as it:
        for name, age in (("profile-a", 3), ("profile-b", 1), ("profile-c", 2), ("train-d", 0)):
            folder = it.run.path("superseded") / name
            samples = folder / ("tables/local" if name != "train-d" else "checkpoints")
            samples.mkdir(parents=True)
            os.utime(samples, (1e9 - age, 1e9 - age))
        found = profile._earlier(it, "local")
        assert [path.relative_to(it.run.path("superseded")).parts[0] for path in found] == [
            "profile-b", "profile-c", "profile-a"
        ]  # fmt: skip


def test_other_processes_only_evaluate(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    it, calls = replace(look(bench), ranks=Ranks(rank=1, size=2)), []
    monkeypatch.setattr(search, "assist", lambda *_: calls.append("assist"))
    monkeypatch.setattr(search, "_search_one", lambda *_: calls.append("search"))
    search.search(it, lambda *_: None)
    assert calls == ["assist"]


def test_the_winner_is_timed_in_all_its_onnx_files(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    it = look(bench)
    archs = it.files.read_roles()
    winner, others = archs["winner"].key, {arch.key for arch in archs.values()}
    found = verify._timed_files(it, archs, "winner", it.devices["local"])
    assert set(found) == {*others, f"{winner}.model.int8.onnx"}
    assert found[winner].name == "model.onnx"
    alone = {"winner": archs["winner"]}
    in_8_bits = verify._timed_files(it, alone, "winner", it.devices["local_int8"])
    assert set(in_8_bits) == {winner, f"{winner}.model.onnx"}
    assert in_8_bits[winner].name == "model.int8.onnx"
    other = verify._timed_files(it, archs, "winner", replace(it.devices["local"], batch=4))
    assert other == found  # they take any batch
    built = Exported(ModelFile("m.bin", "of a plugin", "fp32"), ("m.bin", "m.onnx"), None, "no run")
    exports = {key: (*rows, built) for key, rows in it.files.read_exports().items()}
    monkeypatch.setattr(type(it.files), "read_exports", lambda _: exports)
    assert verify._timed_files(it, archs, "winner", it.devices["local"]) == found


def test_verifying_keeps_answers_and_shows_every_network(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = bench.config({"devices": ["local"], "search.closing.max_rounds": 0})
    kept: list[Any] = []
    shown: list[tuple[int, int]] = []

    def answered(it: Project, winner: NetworkResult, replies: object) -> Answered:
        assert replies == "replies"
        return Answered(winner.device, winner.arch, winner.file, (), (), ())

    def keep(rows: tuple[Answered, ...]) -> Answers:
        kept.append(rows)
        return Answers(rows)

    monkeypatch.setattr(verify, "_answered", answered)
    monkeypatch.setattr(verify, "Answers", keep)
    results = timed_verify(
        bench, config, monkeypatch, slower=1.0, pace=1.0, replies={"model.onnx": "replies"},
        progress=lambda done, total, note="": shown.append((done, total)),
    )  # fmt: skip
    winner = results.networks[0]
    assert kept == [(Answered("local", winner.arch, "model.onnx", (), (), ()),)]
    n = len({row.arch for row in results.networks})
    done, totals = zip(*shown[:n], strict=True)
    (total,) = set(totals)
    assert done[-1] == total - verify.RETIMED >= n  # files
    assert [*done] == sorted(set(done)) and done[0] > 0


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("train", {"train__optimizer__name": "no_such"}, "cannot create the optimiser"),
        ("finetune/main", {"finetune__optimizer__name": "no_such"}, "cannot create the optimiser"),
        (
            "finetune/main",
            {"finetune__precision": "int8", "devices": ["local"], "export": ["onnx"]},
            "no exported format has a rounding that it can imitate",
        ),
        ("train", {"train__steps": 0}, "needs starting weights"),
    ],
)
def test_what_would_fail_is_refused_before_anything_runs(
    bench: Bench, name: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        stages(look(bench, search__constraints=[], **changes))[name].check()
    stages(look(bench))[name].check()


def test_tables_of_another_machine_are_not_verified_here(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    it = look(bench)
    own = str(it.files.read_table("local").facts["cpu"])
    monkeypatch.setattr(verify, "is_profiled", lambda it, device: device == "local")
    monkeypatch.setattr(verify, "networks", lambda it: {}["verified"])
    for cpu, error in ((own, KeyError), ("another", UserError)):
        monkeypatch.setattr(foreign_tables, "host_facts", lambda cpu=cpu: {"cpu": cpu})
        with pytest.raises(error):
            verify.verify(it, silent)
    with pytest.raises(UserError, match="another machine"):
        verify.check(it)
    monkeypatch.setattr(verify, "is_profiled", lambda it, device: False)
    verify.check(it)  # they are measured again


def test_timings_that_cannot_be_judged_are_measured_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, bool]] = []
    remove = verify._measure_again

    def measure_again(it: Project, device: str) -> None:
        folder = it.files.verification / device
        folder.mkdir(parents=True)
        for _ in range(2):  # the second time there is nothing to remove
            remove(it, device)
            seen.append((device, folder.exists()))

    monkeypatch.setattr(verify, "_measure_again", measure_again)
    config = bench.config({"devices": ["local"], "search.closing.max_rounds": 0})
    results = timed_verify(bench, config, monkeypatch, slower=1.0, pace=1.5)
    assert results.of(None) and seen == [("local", False)] * 2
    assert not timed_verify(bench, config, monkeypatch, slower=1.0, pace=1.0).of(None)
    assert len(seen) == 2


@pytest.mark.parametrize(("pace", "is_settled"), [(1.0, True), (1.5, False)])
def test_results_are_settled_once_every_check_could_be_judged(
    bench: Bench, pace: float, is_settled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = bench.config({"devices": ["local"], "search.closing.max_rounds": 0})
    results = timed_verify(bench, config, monkeypatch, slower=1.0, pace=pace)
    with bench.project(config) as it:
        it.files.results.write(results)
        assert stages(it)["verify/main"].settled() is is_settled


def test_exports_of_earlier_versions_are_complete_once_verified(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = bench.config({"devices": ["local"], "search.closing.max_rounds": 0})
    known = timed_verify(bench, config, monkeypatch, slower=1.0, pace=1.0)
    failed = replace(known, checks=(replace(known.checks[0], passed=False), *known.checks[1:]))
    with bench.project(config) as it:
        monkeypatch.setattr(export, "artifacts_are_there", lambda it: False)
        assert not export._is_complete(it)  # there are no results
        for results, is_complete in ((known, True), (failed, False)):
            it.files.results.write(results)
            assert export._is_complete(it) is is_complete
        it.files.results.write(known)
        more = replace(it, config=bench.config({"devices": ["local", "local_int8"]}))
        assert not export._is_complete(more)
        monkeypatch.setattr(RunDir, "ledger", lambda self: {})
        assert not export._is_complete(it)
        monkeypatch.setattr(export, "artifacts_are_there", lambda it: True)
        assert export._is_complete(it)


def test_both_searches_leave_their_fronts_and_only_the_configured_one_is_re_measured(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, files = PROBES["search"](bench, bench.config({}), monkeypatch)
    files = {name: content for name, content in files.items() if content is not None}  # were there
    metrics = ("latency_ms-local", "latency_ms-local_int8", "latency_p95_ms-local", "macs")
    for folder in ("search/main", "search/main/random"):
        assert {f"{folder}/fronts/{name}.json" for name in metrics} <= set(files)
        assert files[f"{folder}/result.json"]
    assert "search/main/closing.json" in files
    assert not [name for name in files if name.startswith("search/main/random/closing")]


def test_references_are_timed_on_every_device(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def timed(chosen: Any, device: Any, *_: Any, **__: Any) -> References:
        return References(device.name, (), {})

    monkeypatch.setattr(references, "time_references", timed)
    with bench.project(bench.config({"search.references": {"names": ["resnet18"]}})) as it:
        references.references(it, silent)
        found = it.files.references.results.read()
    assert [one.device for one in found.devices] == ["local", "local_int8"]
    assert found.trained == ()


def test_every_format_is_compared_in_its_model_file(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = bench.config({"verify.parity_batches": [1, 3], "threads": 2})
    calls, files = PROBES["export"](bench, config, monkeypatch)
    assert [call[1:] for call in calls if call[0] == "open"] == [
        ["onnx", "model.onnx", 2],
        ["timm", "weights.safetensors", 2],
        ["int8", "model.int8.onnx", 2],
    ]
    compared = [call[1] for call in calls if call[0] == "parity"]
    assert [one["file"] for one in compared] == [
        "model.onnx", "weights.safetensors", "model.int8.onnx"
    ]  # fmt: skip
    assert all(one["batches"] == [1, 3] for one in compared)
    assert [one["min_agreement"] for one in compared] == [1.0, 1.0, 0.98]
    ((key, rows),) = files["search/main/export/exports.json"]["exports"].items()
    assert [row["files"][0] for row in rows] == [one["file"] for one in compared]
    for name in ("model.onnx", "model.int8.onnx", "weights.safetensors", "model.py"):
        assert files[f"search/main/export/{key}/{name}"] is not None


@pytest.mark.parametrize(
    ("precision", "difference", "is_refused"),
    [("fp32", 0.5, False), ("fp32", 2.0, True), ("int8", 2.0, False), ("fp32", None, False)],
)
def test_only_a_differing_float_file_stops_the_export(
    bench: Bench,
    precision: Any,
    difference: float | None,
    is_refused: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The files are recorded all the same. Those that cannot run here are not compared."""
    first = ParityReport("model.onnx", "ort", 1.0, 1.0, (BatchParity(1, 1, 0.0, 0.0, 0.5, 1.0),))
    report = None
    if difference is not None:
        report = replace(first, batches=(BatchParity(1, 1, 0.0, 0.0, difference, 1.0),))
    rows = [
        Exported(ModelFile("model.onnx", "onnx", "fp32"), ("model.onnx",), first),
        Exported(ModelFile("other.onnx", "onnx", precision), ("other.onnx",), report),
    ]
    monkeypatch.setattr(export, "_export_arch", lambda *_: rows)
    shown: list[Any] = []
    with bench.project(bench.config({})) as it:
        winner = it.files.read_roles()["winner"]
        monkeypatch.setattr(export, "network_names", lambda it: {winner: "winner"})
        with pytest.raises(CheckFailed, match="differ") if is_refused else nullcontext() as caught:
            export.export(it, lambda done, total, note="": shown.append((done, total, note)))
        assert it.files.read_exports() == {winner.key: tuple(rows)}
    n = sum(map(weight, it.formats))  # in the expected seconds of each format
    assert shown == [(n, n, f"winner (1 of 1 networks), parity {first.worst:.1e}")]
    if caught is not None:
        assert set(caught.value.found) == {f"{winner.key}/other.onnx"}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("failing", "is_refused"), [("onnx", True), ("int8", True), ("timm", False)]
)
def test_a_format_that_no_device_needs_may_fail(
    bench: Bench, failing: str, is_refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reason is recorded, and the export of the others goes on."""
    parity = ParityReport("f", "ort", 1.0, 1.0, (BatchParity(1, 1, 0.0, 0.0, 0.5, 1.0),))

    def write(one: Any, *_: Any, **__: Any) -> Any:
        if one.name == failing:
            raise UserError("the format cannot express this", found="operator lstm\nof layer 3")
        return (one.path,)

    def checked(it: Project, one: Any, files: Any, *_: Any) -> Exported:
        return Exported(ModelFile(one.path, one.name, one.precision), files, parity)

    monkeypatch.setattr(export, "export_safely", write)
    monkeypatch.setattr(export, "_checked", checked)
    with bench.project(bench.config({})) as it:
        winner = it.files.read_roles()["winner"]
        monkeypatch.setattr(export, "network_names", lambda it: {winner: "winner"})
        if is_refused:
            with pytest.raises(UserError, match="cannot express this"):
                export.export(it, silent)
            return
        export.export(it, silent)
        found = {one.model.format: one for one in it.files.read_exports()[winner.key]}
    assert {name: one.parity for name, one in found.items()} == {
        "onnx": parity, "timm": None, "int8": parity
    }  # fmt: skip
    assert found["timm"].files == ()
    assert found["timm"].not_run == "the format cannot express this: operator lstm"


def test_damaged_weights_of_a_network_are_trained_again(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    with bench.project(bench.config({})) as it:
        winner = it.files.read_roles()["winner"]
        assert tuning.Tuning(it)._known(winner) is not None and not caplog.text
        path = it.files.network(winner)
        path.write_bytes(path.read_bytes()[:-1])
        assert tuning.Tuning(it)._known(winner) is None
        assert "the network is fine-tuned again" in caplog.text


@pytest.mark.parametrize("teacher", ["inherited", "tuned"])
def test_the_largest_network_teaches_as_inherited_or_fine_tuned_first(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, teacher: str
) -> None:
    """Fine-tuned, it learns from labels alone, before the others."""
    seen: list[tuple[int, Any]] = []

    def tuned(model: Any, *_: Any, teacher: Any, **__: Any) -> Any:
        seen.append((sum(p.numel() for p in model.parameters()), teacher))
        return model.eval()

    monkeypatch.setattr(finetuning, "finetune", tuned)
    with bench.project(bench.config({"finetune.teacher": teacher})) as it:
        archs = it.files.read_roles()
        for arch in archs.values():
            it.files.network(arch).unlink(missing_ok=True)
        finetune.finetune_all(it, silent)
        largest = build_subnet(it.space, it.space.largest(), seed=0)
        n_params = sum(p.numel() for p in largest.parameters())
    sizes, teachers = zip(*seen, strict=True)
    assert sizes[0] == n_params and max(sizes[1:]) < n_params
    assert len(set(map(id, teachers[1:]))) == 1 and teachers[1] is not None
    assert (teachers[0] is None) == (teacher == "tuned")
    of_teacher = sum(p.numel() for p in teachers[1].model.parameters())
    assert of_teacher == n_params and teachers[1].px == it.space.macro.resolutions[-1]


def test_references_learn_the_logits_of_the_teacher_but_not_its_features(bench: Bench) -> None:
    """A network of another design has other features, even of another number."""
    it = look(bench, finetune__feature_distillation=4.0, finetune__distillation=0.5)
    how = reference_training.recipe(it, ReferencesConfig())
    assert (how.distillation, how.feature_distillation) == (0.5, 0.0) and how.has_teacher
    alone = reference_training.recipe(it, ReferencesConfig(start="scratch"))
    assert not alone.has_teacher
