"""Every path that a public function takes: what is no such file is an error, and at once."""

from __future__ import annotations

import contextlib
import inspect
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import hwnas
from hwnas.core.errors import UserError
from hwnas.exporters.timm import load_network
from hwnas.interfaces import DatasetContext
from hwnas.nets import subnet
from hwnas.nets.pretrained import read_weights
from hwnas.nets.proxyless_weights import read_proxyless
from hwnas.predictors.open_records import open_records
from hwnas.training import photo_store
from hwnas.training.datasets import image_folder, npz_jpeg
from hwnas.training.loose_photos import loose_photos
from hwnas.training.photo_folders import Scan
from tests.limits import bounded
from tests.old_runs import unpacked_run

TABLE = "amd-epyc-2vcpu-mobilenet_v3"
TINY: dict[str, Any] = {"space": "mobilenet_tiny", "num_classes": 10}
HANGS_S = 5  # all of these take milliseconds, once what they import is there
MEMORY = 4 << 30  # more than what is mapped already

Entry = Callable[[Path], object]


def of_spaces() -> dict[str, tuple[str, Entry]]:
    """What reads spaces, and latency tables."""
    return {
        "space.name": ("x.yaml", lambda p: hwnas.space(str(p))),
        "space_show.name": ("x.yaml", lambda p: hwnas.space_show(str(p))),
        "space_show.table": (
            "x.json",
            lambda p: hwnas.space_show("mobilenet_tiny", table=p),
        ),
        "space_count.name": ("x.yaml", lambda p: hwnas.space_count(str(p))),
        "space_sample.name": ("x.yaml", lambda p: hwnas.space_sample(str(p))),
        "space_validate.name": ("x.yaml", lambda p: hwnas.space_validate(str(p))),
        "latency_table.name_or_path": ("x.json", hwnas.latency_table),
        "table_show.table": ("x.json", hwnas.table_show),
        "table_validate.table": ("x.json", hwnas.table_validate),
        "table_estimate.table": ("x.json", lambda p: hwnas.table_estimate(p, space="mobilenet_v3")),
        "table_estimate.space": ("x.yaml", lambda p: hwnas.table_estimate(TABLE, space=str(p))),
        "table_estimate.arch": (
            "x.json",
            lambda p: hwnas.table_estimate(TABLE, space="mobilenet_v3", arch=str(p)),
        ),
        "table_diff.first": ("x.json", lambda p: hwnas.table_diff(p, TABLE)),
        "table_diff.second": ("x.json", lambda p: hwnas.table_diff(TABLE, p)),
        "table_merge.tables": ("x.json", lambda p: hwnas.table_merge([TABLE, p])),
        "table_transfer.known": (
            "x.json",
            lambda p: hwnas.table_transfer("local", known=[p], out=p.with_name("o.json"), **TINY),
        ),
        "table_transfer.device": (
            "x.yaml",
            lambda p: hwnas.table_transfer(
                str(p), known=[TABLE], out=p.with_name("o.json"), **TINY
            ),
        ),
        "table_transfer.space": (
            "x.yaml",
            lambda p: hwnas.table_transfer(
                "local", known=[TABLE], out=p.with_name("o.json"), space=str(p)
            ),
        ),
        "table_convert.path": ("x.yaml", lambda p: hwnas.table_convert("pixel1", p)),
        "table_convert.path, tfnas": ("x.json", lambda p: hwnas.table_convert("tfnas", p)),
        "table_convert.path, help": (
            "latency.npz",
            lambda p: hwnas.table_convert("help", p.parent, device="gold_6240"),
        ),
    }


def of_devices() -> dict[str, tuple[str, Entry]]:
    """What reads device files and results of the kit."""
    return {
        "profile.device": ("x.yaml", lambda p: hwnas.profile(str(p), **TINY)),
        "profile.space": ("x.yaml", lambda p: hwnas.profile("local", str(p))),
        "profile.config": (
            "x.yaml",
            lambda p: hwnas.profile("local", run=p.with_name("run"), config=str(p)),
        ),
        "clean.device": ("x.yaml", lambda p: hwnas.clean(device=[str(p)])),
        "references.device": (
            "x.yaml",
            lambda p: hwnas.references(device=str(p), out=p.with_name("o.json")),
        ),
        "profile_pack.device": (
            "x.yaml",
            lambda p: hwnas.profile_pack(str(p), out=p.with_name("o.zip"), **TINY),
        ),
        "profile_pack.space": (
            "x.yaml",
            lambda p: hwnas.profile_pack("local", out=p.with_name("o.zip"), space=str(p)),
        ),
        "profile_import.device": ("x.yaml", lambda p: hwnas.profile_import(str(p), p, **TINY)),
        "profile_import.results": ("x.jsonl", lambda p: hwnas.profile_import("local", p, **TINY)),
        "profile_import.results, zip": (
            "x.zip",
            lambda p: hwnas.profile_import("local", p, **TINY),
        ),
        "profile_import.space": (
            "x.yaml",
            lambda p: hwnas.profile_import("local", p, space=str(p)),
        ),
    }


def of_files() -> dict[str, tuple[str, Entry]]:
    """What reads records, bundles, weights and data."""
    return {
        "predictor_eval.records": ("x.csv", lambda p: hwnas.predictor_eval(records=p)),
        "predictor_eval.space": (
            "x.yaml",
            lambda p: hwnas.predictor_eval(records=__file__, reader="hwnas", space=str(p)),
        ),
        **{
            f"predictor_eval.records, {reader}": (
                "x.json",
                lambda p, reader=reader: open_records(
                    p, reader=reader, space="mobilenet_v3", num_classes=10
                ),
            )
            for reader in (
                "hwnas",
                "nasbench201",
                "nas_bench_macro",
                "ofa_imagenet",
                "accel_nasbench",
                "darts_cells",
                "transnas_micro",
            )
        },
        "verify.folder, bundle": ("manifest.json", lambda p: hwnas.verify(p.parent)),
        "search.space": (
            "x.yaml",
            lambda p: hwnas.search(str(p), score=lambda archs: [0.0 for _ in archs]),
        ),
        "pretrained_import.file": ("x.pth", hwnas.pretrained_import),
        "pretrained_import.space": (
            "x.yaml",
            lambda p: hwnas.pretrained_import("shipped", space=str(p)),
        ),
        "pretrained_import.images": (
            "x.jpg",
            lambda p: list(loose_photos(p.parent, 32, batch_size=4, at_most=4)),
        ),
        "supernet.init": ("x.safetensors", read_weights),
        "supernet.init, npz": ("x.npz", read_weights),
        "proxyless, description": ("x.json", lambda p: read_proxyless(p, p)),
        "data.root, npz_jpeg": (
            "train.npz",
            lambda p: npz_jpeg.ends(npz_jpeg.Config(root=str(p.parent))),
        ),
    }


def within_runs(run: Path) -> dict[str, tuple[str, Entry]]:
    """What reads files for a verb of a run folder."""
    return {
        "predictor_lookup.table": (
            "x.safetensors",
            lambda p: hwnas.predictor_lookup(run, table=p),
        ),
        "predictor_predict.archs": (
            "x.json",
            lambda p: hwnas.predictor_predict(run, [str(p)]),
        ),
        "predictor_export_lut.base": (
            "x.json",
            lambda p: hwnas.predictor_export_lut(run, out=p.with_name("o"), base=str(p)),
        ),
        "space_validate.arch": (
            "x.json",
            lambda p: hwnas.space_validate("mobilenet_tiny", arch=str(p)),
        ),
        "analyze.records": ("x.csv", lambda p: hwnas.analyze(records=p)),
        "analyze.ranking": ("x.json", lambda p: hwnas.analyze(run, ranking=str(p), truth=[run])),
        "analyze.truth": ("x", lambda p: hwnas.analyze(run, ranking="supernet", truth=[p])),
        "analyze.table": ("x.json", lambda p: hwnas.analyze(run, table=[str(p)])),
        "analyze.prune": ("x", lambda p: hwnas.analyze(prune=p)),
        "prune.ranking": ("x.json", lambda p: hwnas.prune(run, ranking=str(p), truth=[run])),
        "prune.truth": ("x", lambda p: hwnas.prune(run, ranking="supernet", truth=[p])),
    }


def of_runs() -> dict[str, tuple[str, Entry]]:
    """What takes a run folder, or a configuration for one."""
    return {
        **{
            f"{name}.{parameter}": ("x", lambda p, f=f, q=parameter: f(**{q: p}))
            for name, f in FUNCTIONS.items()
            for parameter in ("folder", "run")
            if parameter in inspect.signature(f).parameters
            and name
            not in (
                "run",
                "profile",
                "predictor_eval",
                "analyze",
                "prune",
                "verify",
                "predictor_predict",
                "plan",
                "search",
            )
        },
        "config_show.config": ("x.yaml", hwnas.config_show),
        "profile.run": ("x", lambda p: hwnas.profile("local", run=p)),
        "predictor_eval.folder": ("x", lambda p: hwnas.predictor_eval(p)),
        "predictor_predict.folder": ("x", lambda p: hwnas.predictor_predict(p, ["largest"])),
        "analyze.folder": ("x", lambda p: hwnas.analyze(p)),
        "prune.folder": ("x", lambda p: hwnas.prune(p, ranking="supernet", truth=[])),
        "verify.folder": ("x", lambda p: hwnas.verify(p)),
        "plan.folder": ("x", lambda p: hwnas.plan(p)),
        "search.where": ("x", lambda p: hwnas.search(p)),
        **{
            f"{name}.config": (
                "x.yaml",
                lambda p, f=f: f(folder=p.with_name("run"), config=str(p)),
            )
            for name, f in FUNCTIONS.items()
            if {"config", "folder"} <= set(inspect.signature(f).parameters)
        },
    }


def readers(run: Path) -> dict[str, tuple[str, Entry]]:
    """By `function.parameter`: the name of a file, and what reads it; `run` is a finished run."""
    return of_spaces() | of_devices() | of_files() | within_runs(run) | of_runs()


FUNCTIONS = {
    name: getattr(hwnas, name) for name in hwnas.__all__ if inspect.isfunction(getattr(hwnas, name))
}
ENTRIES = list(readers(Path()))
KINDS = ["a pipe", "a device", "a folder", "nothing", "a long name", "a zero byte"]
if os.geteuid() != 0:  # who may read everything
    KINDS.append("not for us")
WRITTEN = {"out", "prune"}  # parameters that name what is made


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run folder."""
    folder = tmp_path_factory.mktemp("runs")
    finished = unpacked_run("finished", folder)
    for name, read in readers(finished).values():
        with contextlib.suppress(UserError):  # imports what it needs, which is not what is timed
            read(folder / "warm" / name)
    return finished


@pytest.fixture
def limits() -> Iterator[None]:
    """A reader that waits is interrupted; one that reads on runs out of memory."""
    with bounded(seconds=HANGS_S, memory=MEMORY):
        yield


def placed(folder: Path, name: str, kind: str) -> Path:
    """A path below `folder` of the given kind."""
    path = folder / name
    if kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a device":
        path.symlink_to("/dev/zero")
    elif kind == "a folder":
        path.mkdir()
    elif kind == "a long name":
        path = folder / (300 * "x" + name)
    elif kind == "a zero byte":
        path = folder / f"\0{name}"
    elif kind == "not for us":
        path.touch(mode=0)
    return path


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("entry", ENTRIES)
def test_what_is_no_file_is_an_error_at_once(
    entry: str, kind: str, run: Path, tmp_path: Path, limits: None
) -> None:
    name, read = readers(run)[entry]
    inner = tmp_path / "inner"
    inner.mkdir()
    with pytest.raises(UserError):
        read(placed(inner, name, kind))


def test_the_list_has_every_path_that_a_public_function_takes() -> None:
    by_name = {"config", "device", "space", "name", "arch", "archs", "base", "where"}
    takes = {
        f"{name}.{parameter.name}"
        for name, function in FUNCTIONS.items()
        for parameter in inspect.signature(function).parameters.values()
        if parameter.name not in WRITTEN
        and (
            any(word in str(parameter.annotation) for word in ("Folder", "Path", "Table"))
            or parameter.name in by_name
        )
    }
    listed = {entry.partition(",")[0] for entry in ENTRIES}
    names_only = {"table_fit.device", "table_convert.device"}
    elsewhere = {"run.folder"}  # tested below: of nothing, a run is made
    assert takes - listed == names_only | elsewhere
    assert len(takes) > 60


@pytest.mark.parametrize("kind", ["a pipe", "a device"])
def test_a_run_folder_that_is_no_folder_is_an_error(
    kind: str, tmp_path: Path, limits: None
) -> None:
    with pytest.raises(UserError):
        hwnas.run("digits", folder=placed(tmp_path, "run", kind))


@pytest.mark.parametrize("kind", ["a pipe", "a device", "a folder"])
@pytest.mark.parametrize("place", ["train/a/x.jpg", "train.npz"])
def test_data_sets_read_regular_files_alone(
    place: str, kind: str, tmp_path: Path, limits: None
) -> None:
    path = tmp_path / place
    path.parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "train" / "b").mkdir(parents=True, exist_ok=True)
    placed(path.parent, path.name, kind)
    context = DatasetContext(seed=0)
    with pytest.raises(UserError):
        if path.suffix == ".jpg":
            image_folder.build(image_folder.Config(root=str(tmp_path)), context)
        else:
            npz_jpeg.build(npz_jpeg.Config(root=str(tmp_path)), context)


@pytest.mark.parametrize("kind", ["a pipe", "a device"])
def test_an_image_that_became_a_pipe_after_it_was_listed_is_broken(
    kind: str, tmp_path: Path, limits: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "ab":
        (tmp_path / "train" / name).mkdir(parents=True)
        placed(tmp_path / "train" / name, "x.jpg", kind)
    monkeypatch.setattr(photo_store, "scan", lambda at, seen: Scan([f"{at.name}/x.jpg"]))
    with pytest.raises(UserError, match="regular file"):  # by what hashes the files
        image_folder.build(image_folder.Config(root=str(tmp_path)), DatasetContext(seed=0))
    monkeypatch.setattr(photo_store, "file_hashes", lambda folder, names: dict.fromkeys(names, ""))
    with pytest.raises(UserError, match="regular file"):  # by what reads them
        image_folder.build(image_folder.Config(root=str(tmp_path)), DatasetContext(seed=0))


@pytest.mark.parametrize("kind", KINDS)
def test_weights_beside_a_definition_are_a_regular_file(
    kind: str, tmp_path: Path, limits: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subnet, "build_from_definition", lambda *_, **__: torch.nn.Linear(1, 1))
    (tmp_path / "arch.json").write_text("{}")
    with pytest.raises(UserError, match=r"weights do not fit|neither a file"):
        load_network(placed(tmp_path, "weights.safetensors", kind))
