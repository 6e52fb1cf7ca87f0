"""A bundle of a stranger runs nothing: the payloads here would leave a marker file behind."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import io
import json
import os
import pickle
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import hwnas
from hwnas.cli.main import app
from hwnas.core.errors import UserError
from hwnas.exporters import engine as engines
from hwnas.exporters import pt2
from hwnas.exporters.bundle import read_manifest
from hwnas.exporters.engine import run_engine
from hwnas.exporters.formats import open_model
from hwnas.exporters.opened import CannotRunHere
from hwnas.exporters.own import remember
from hwnas.interfaces import ModelFile
from tests.bundles import colour_bundle, colour_manifest


class Marks:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return Path.touch, (self.path,)  # type: ignore[return-value]


class Mean(torch.nn.Module):
    """The colour net of tests.bundles."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=(2, 3))


def program() -> bytes:
    """A .pt2 that somebody else exported."""
    example = (torch.zeros(2, 3, 4, 4),)
    stream = io.BytesIO()
    exported = torch.export.export(
        Mean(), example, dynamic_shapes=({0: torch.export.Dim("batch")},)
    )
    torch.export.save(exported, stream)
    return stream.getvalue()


def rewritten(content: bytes, change: Callable[[str, bytes], bytes], **more: bytes) -> bytes:
    """An archive whose members went through `change`, and `more` in its data folder."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(stream, "w") as target:
        names = source.namelist()
        for name in names:
            target.writestr(name, change(name, source.read(name)))
        root = names[0].split("/")[0]
        for name, extra in more.items():
            target.writestr(f"{root}/data/{name.replace('__', '/')}", extra)
    return stream.getvalue()


def pickled_weights(marker: Path, flag: bytes) -> bytes:
    """Weights that are named as pickled, by a spelling of the flag that a filter misses."""

    def change(name: str, member: bytes) -> bytes:
        if name.endswith("model_weights_config.json"):
            entry = b'{"path_name":"evil","is_param":true,' + flag + b',"tensor_meta":null}'
            return b'{"config":{"w":' + entry + b"}}"
        return member

    return rewritten(program(), change, weights__evil=pickle.dumps(Marks(marker)))


def opaque_object(marker: Path) -> bytes:
    def change(name: str, member: bytes) -> bytes:
        if not name.endswith("model_constants_config.json"):
            return member
        entry = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True}
        return json.dumps({"config": {"c": entry | {"tensor_meta": None}}}).encode()

    return rewritten(program(), change, constants__opaque_obj_0=pickle.dumps(Marks(marker)))


def evaluated_expression(marker: Path) -> bytes:
    """sympy evaluates the size of the batch axis."""
    code = f"__import__('pathlib').Path({str(marker)!r}).touch()"

    def change(name: str, member: bytes) -> bytes:
        if not name.endswith("model.json"):
            return member

        def walk(value: Any) -> Any:
            if isinstance(value, dict):
                return {k: code if k == "expr_str" else walk(v) for k, v in value.items()}
            return [walk(v) for v in value] if isinstance(value, list) else value

        return json.dumps(walk(json.loads(member))).encode()

    return rewritten(program(), change)


ATTACKS: dict[str, Callable[[Path], bytes]] = {
    "no blank": lambda marker: pickled_weights(marker, b'"use_pickle":true'),
    "escape": lambda marker: pickled_weights(marker, b'"use_\\u0070ickle": true'),
    "opaque object": opaque_object,
    "expression": evaluated_expression,
}


def bundle_with(folder: Path, model: ModelFile, content: bytes, **more: bytes) -> Path:
    """A bundle with a further model, whose manifest is in order."""
    manifest = colour_manifest()
    manifest = dataclasses.replace(manifest, models=(*manifest.models, model))
    sources = folder.parent / "more"
    for name, data in {model.path: content, **more}.items():
        (sources / name).parent.mkdir(parents=True, exist_ok=True)
        (sources / name).write_bytes(data)
    onnx_source = folder.parent / "sources" / "fp32.onnx"
    colour_bundle(
        folder,
        manifest,
        models={manifest.models[0].path: onnx_source, model.path: sources / model.path},
        companions={name: sources / name for name in more},
    )
    return folder


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "marker"


@pytest.fixture
def _sources(tmp_path: Path) -> None:
    colour_bundle(tmp_path / "plain")  # leaves tmp_path/sources/fp32.onnx


@pytest.mark.usefixtures("_sources")
@pytest.mark.parametrize("attack", ATTACKS)
def test_a_foreign_pt2_is_not_loaded(attack: str, marker: Path, tmp_path: Path) -> None:
    content = ATTACKS[attack](marker)
    folder = bundle_with(tmp_path / "b", ModelFile("model.pt2", "pt2", "fp32"), content)
    found = hwnas.verify(folder)
    rows = {row["model"]: row["passed"] for row in found.to_dict()["table"]}
    assert rows == {"models/fp32.onnx": True, "model.pt2": None}
    assert any("model.pt2: not run here" in note for note in found.to_dict()["notes"])
    with pytest.raises(CannotRunHere):
        pt2.build(pt2.Config()).open_model(folder / "model.pt2")
    assert not marker.exists()


@pytest.mark.parametrize("attack", ATTACKS)
def test_the_payload_of_a_foreign_pt2_is_a_real_one(
    attack: str, marker: Path, tmp_path: Path
) -> None:
    """torch runs it: the tests above would fail if the file were loaded."""
    path = tmp_path / "model.pt2"
    path.write_bytes(ATTACKS[attack](marker))
    with contextlib.suppress(UserError):
        open_model("pt2", path, trust=True)
    assert marker.exists()


@pytest.mark.usefixtures("_sources")
def test_a_ledger_that_came_with_the_bundle_vouches_for_nothing(
    marker: Path, tmp_path: Path
) -> None:
    from hwnas.core.store import file_hash, write_json

    run = tmp_path / "run"
    run.mkdir()
    model = ModelFile("model.pt2", "pt2", "fp32")
    folder = bundle_with(run / "bundles" / "main" / "local", model, evaluated_expression(marker))
    outputs = {"search/main/export/x/model.pt2": file_hash(folder / "model.pt2")}
    record = {"inputs_hash": "0" * 16, "state": "done", "outputs": outputs, "seconds": 1.0}
    write_json(run / "stages.json", {"schema_version": 1, "stages": {"export/main": record}})
    hwnas.verify(folder, report_only=True)
    assert not marker.exists()


@pytest.mark.usefixtures("_sources")
def test_a_pt2_of_our_own_is_run_and_a_trusted_one_too(tmp_path: Path) -> None:
    content = program()
    folder = bundle_with(tmp_path / "b", ModelFile("model.pt2", "pt2", "fp32"), content)

    def passed(*options: str) -> bool | None:
        done = CliRunner().invoke(app, ["verify", str(folder), "--format", "json", *options])
        assert done.exit_code == 0, done.output
        return {r["model"]: r["passed"] for r in json.loads(done.stdout)["table"]}["model.pt2"]

    assert passed() is None
    assert passed("--trust") is True
    assert passed() is None  # trust lasts for one command
    remember(content)
    assert passed() is True


def test_what_this_hwnas_exports_it_opens(tiny_space: Any, tmp_path: Path) -> None:
    from hwnas.nets.subnet import build_subnet

    network = build_subnet(tiny_space, tiny_space.smallest()).eval()
    (path,) = hwnas.export(network, "pt2", tmp_path)
    assert open_model("pt2", path).logits(np.zeros((1, 3, 16, 16), np.float32)).shape == (1, 10)
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(CannotRunHere):
        open_model("pt2", path)


@pytest.mark.usefixtures("_sources")
@pytest.mark.parametrize("is_own", [False, True])
def test_scripts_in_a_bundle_are_not_run_where_there_is_a_gpu(
    is_own: bool, marker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bundle's kit certifies itself and leaves a marker; the host's own kit is what runs."""
    monkeypatch.setattr(ctypes, "CDLL", lambda name: None)
    started: list[list[str]] = []
    run = engines.subprocess.run

    def recorded(command: list[str], **options: Any) -> Any:
        started.append(command)
        return run(command, **options)

    monkeypatch.setattr(engines.subprocess, "run", recorded)
    name = "engines/model.engine"
    content = b"engine" + os.urandom(8)
    folder = bundle_with(
        tmp_path / "b",
        ModelFile(name, "tensorrt", "fp32"),
        content,
        **{f"{name}.json": b"{}"},
    )
    if is_own:
        remember(content)
    script = f"open({str(marker)!r}, 'w')\n"
    for path in folder.glob("*.py"):
        path.write_text(script)
    monkeypatch.chdir(folder)
    if is_own:
        passed, text = run_engine(folder, name)
        assert not passed and text
        (command,) = started
        assert command[0] == sys.executable
        assert not Path(command[1]).is_relative_to(folder.resolve())
    else:
        with pytest.raises(CannotRunHere, match="did not write it"):
            run_engine(folder, name)
        assert not started
    assert not marker.exists()


@pytest.mark.usefixtures("_sources")
def test_facts_of_an_engine_lead_nowhere_else(tmp_path: Path) -> None:
    from hwnas.core.store import file_hash

    name = "engines/model.engine"
    (tmp_path / "victim").write_bytes(b"secret")
    (tmp_path / "engine").write_bytes(b"engine")
    facts = {
        "runtime": "tensorrt",
        "runtime_version": "10",
        "capability": "8.9",
        "model": "../victim",
        "model_sha256": file_hash(tmp_path / "victim"),
        "sha256": file_hash(tmp_path / "engine"),
    }
    folder = bundle_with(
        tmp_path / "b",
        ModelFile(name, "tensorrt", "fp32"),
        b"engine",
        **{f"{name}.json": json.dumps(facts).encode()},
    )
    failed = hwnas.verify(folder, report_only=True).to_dict()["failed"]
    assert len(failed) == 1 and "leads outside its folder" in failed[0]


def test_code_of_a_timm_bundle_is_not_imported(
    tiny_space: Any, marker: Path, tmp_path: Path
) -> None:
    """Its network is built by hwnas, from definition and weights."""
    from hwnas.exporters import timm
    from hwnas.nets.subnet import build_subnet

    network = build_subnet(tiny_space, tiny_space.smallest()).eval()
    files = hwnas.export(network, "timm", tmp_path)
    (tmp_path / "model.py").write_text(f"open({str(marker)!r}, 'w')\n")
    assert timm.load_network(files[0]).training is False
    assert not marker.exists()


@pytest.mark.usefixtures("_sources")
@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_links_and_pipes_in_a_bundle_are_refused_at_once(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "plain"
    (tmp_path / "secret").write_text("{}")
    if kind == "link":
        (folder / "unlisted.json").symlink_to(tmp_path / "secret")
    else:
        os.mkfifo(folder / "unlisted.json")
    with pytest.raises(UserError, match=r"unlisted\.json"):
        read_manifest(folder)


@pytest.mark.usefixtures("_sources")
@pytest.mark.parametrize("name", ["a/" * 5000 + "b", "a" * 256], ids=["deep", "long"])
def test_names_that_no_file_has_are_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "plain" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["files"].append({**manifest["files"][0], "path": name})
    path.write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="too long"):
        hwnas.verify(tmp_path / "plain")


@pytest.mark.usefixtures("_sources")
def test_what_lies_around_a_bundle_that_is_in_no_run_folder_does_not_hinder(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("not a configuration of hwnas")
    (tmp_path / "config.yaml").symlink_to(tmp_path / "elsewhere")
    assert hwnas.verify(tmp_path / "plain").to_dict()["table"][0]["passed"]
