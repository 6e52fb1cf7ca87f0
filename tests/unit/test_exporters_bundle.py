"""Bundles: whole or absent whatever happens, refused when altered, old ones loadable."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from hwnas.core import folders
from hwnas.core.errors import UserError
from hwnas.core.folders import recover_folder, replace_folder
from hwnas.core.records import dump
from hwnas.core.resources import kit_module as shipped_kit
from hwnas.core.resources import resource
from hwnas.core.rng import rng
from hwnas.exporters import bundle, manifest
from hwnas.exporters.bundle import read_manifest
from hwnas.exporters.manifest import AccuracyFact, ConstraintFact, InputSpec, LatencyFact, Manifest
from hwnas.exporters.samples import SampleImage, denormalise
from hwnas.interfaces import DeviceSpec, ModelFile
from hwnas.spaces.arch import Arch
from tests.bundles import INPUTS, LOGITS, colour_bundle, colour_manifest, kit_module

ROOT = Path(__file__).resolve().parents[2]
OLD_BUNDLES = sorted((ROOT / "tests" / "assets").glob("bundle_v*"))
MODEL = "models/fp32.onnx"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    colour_bundle(tmp_path / "winner")
    return tmp_path / "winner"


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "manifest.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def newer() -> Manifest:
    return colour_manifest(name="newer")


# --- writing --------------------------------------------------------------------------------------


def test_round_trip_lists_every_file_with_its_hash(folder: Path) -> None:
    made = read_manifest(folder)
    on_disk = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert {file.path for file in made.files} == on_disk - {"manifest.json"}
    assert {*bundle.KIT, MODEL, "samples/00-red.ppm"} < on_disk
    assert dataclasses.replace(made, files=(), samples=()) == colour_manifest()
    assert [(s.label, s.predicted) for s in made.samples] == [(i % 3, i % 3) for i in range(6)]
    np.testing.assert_array_equal(np.load(folder / made.golden.input), INPUTS)
    assert dump(made, version=manifest.MANIFEST_VERSION) == json.loads(
        (folder / "manifest.json").read_text()
    )


def test_the_kit_in_a_bundle_is_complete(folder: Path) -> None:
    """Every module that a shipped script imports, and that lies in export/, is shipped too."""
    import ast

    own = {path.stem for path in resource("export").glob("*.py")}
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert {n for n in names if n in own} <= {p.stem for p in folder.glob("*.py")}, path


def test_the_readme_is_of_this_network(tmp_path: Path) -> None:
    """Classes, accuracy with its error, latency, limits and commands; and leads nowhere outside."""
    made = colour_manifest()
    names = (*made.input.class_names[:2], "<b>*bold*")
    made = dataclasses.replace(made, input=dataclasses.replace(made.input, class_names=names))
    fact = AccuracyFact(made.models[0].path, "colours", "test", 400, 0.9)
    made = dataclasses.replace(made, accuracy=(fact,))
    colour_bundle(tmp_path / "bundle", made)
    text = (tmp_path / "bundle/README.md").read_text()
    assert text.split("---\n\n")[1].startswith(f"# {made.name}\n")
    assert "red, green, \\<b\\>\\*bold\\*" in text
    assert f"90.00% ± {(0.9 * 0.1 / 400) ** 0.5:.2%} of 400 test images" in text
    assert "python3 ort_run.py --check ." in text and "pip install numpy onnxruntime" in text
    for limit in made.constraints:
        assert f"{limit.metric} on {limit.device} at most {limit.max:.4g}: met." in text
    assert "# The device kit" in text and "](../" not in text
    for script in re.findall(r"python3 (\w+\.py)", text):
        assert (tmp_path / "bundle" / script).is_file(), script


def test_manifest_is_valid_by_the_schema_of_the_kit(folder: Path) -> None:
    schema = json.loads(resource("export", "bundle.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    data = json.loads((folder / "manifest.json").read_text())
    jsonschema.validate(data, schema)
    unsafe = (
        "../m",
        "/etc/passwd",
        "a/./b",
        "a//b",
        "a/..",
        "c:\\x",
        "",
        "a/",
        "..",
        "a\nb",
        "a\n",
    )
    for name in unsafe:
        data["files"][0]["path"] = name
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(data, schema)


def test_schema_and_records_have_the_same_fields() -> None:
    schema = json.loads(resource("export", "bundle.schema.json").read_text())

    def names(record: Any) -> list[str]:
        return [field.name for field in dataclasses.fields(record)]

    top = schema["properties"]
    pairs = [
        (["schema_version", *names(Manifest)], schema, {"samples"}),
        (names(Arch), top["arch"], set()),
        (names(InputSpec), top["input"], set()),
        (
            names(ModelFile),
            top["models"]["items"],
            {"min_agreement", "least_runtime", "layout", "torch_rounding"},
        ),
        (names(manifest.SampleFile), top["samples"]["items"], set()),
        (names(manifest.Golden), top["golden"], set()),
        (names(LatencyFact), top["latency"]["items"], set()),
        (names(DeviceSpec), top["latency"]["items"]["properties"]["device"], set()),
        (names(AccuracyFact), top["accuracy"]["items"], {"classes"}),
        (names(ConstraintFact), top["constraints"]["items"], set()),
        (names(manifest.BundleFile), top["files"]["items"], set()),
    ]
    for fields, part, since_2 in pairs:
        assert fields == list(part["properties"])
        assert sorted(fields) == sorted({*part["required"], *since_2})


@pytest.mark.parametrize("stage", ["npy", "_inventory", "write_json", "replace_folder"])
def test_interrupted_export_leaves_nothing_or_the_old_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    def interrupted(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    final = tmp_path / "winner"
    with monkeypatch.context() as patch:
        patch.setattr(bundle, stage, interrupted)
        with pytest.raises(KeyboardInterrupt):
            colour_bundle(final)
    assert not final.exists()
    colour_bundle(final)
    with monkeypatch.context() as patch:
        patch.setattr(bundle, stage, interrupted)
        with pytest.raises(KeyboardInterrupt):
            colour_bundle(final, newer())
    assert read_manifest(final).name == "winner"
    assert {p.name for p in tmp_path.iterdir()} == {"winner", "sources"}


KILLS = """
import json, os, sys
from pathlib import Path
from hwnas.core import folders
from hwnas.exporters import bundle
from tests.bundles import colour_bundle, colour_manifest

folder, can_exchange = Path(sys.argv[1]), sys.argv[2] == "exchange"
bundle.KIT = ()  # fewer steps
os.fsync = lambda stream: None  # a kill is no power cut
if not can_exchange:
    folders._exchange = lambda one, other: False
steps = [(os, "replace"), (os, "rename"), (os, "unlink"), (os, "rmdir"), (folders, "_exchange")]

def child(last):
    count = 0
    def counted(function):
        def call(*args, **kwargs):
            nonlocal count
            count += 1
            if count == last:
                os.kill(os.getpid(), 9)
            return function(*args, **kwargs)
        return call
    for module, name in steps:
        setattr(module, name, counted(getattr(module, name)))
    colour_bundle(folder, colour_manifest(name="newer"), samples=())
    os._exit(0)

found, status = [], -1
colour_bundle(folder, samples=())
while status != 0:
    pid = os.fork()
    if pid == 0:
        child(len(found) + 1)
    status = os.waitpid(pid, 0)[1]
    try:
        state = bundle.read_manifest(folder).name
    except Exception as error:
        state = "gone" if not folder.exists() else f"broken: {error}"
    folders.recover_folder(folder)
    found.append([status, state, bundle.read_manifest(folder).name])
    colour_bundle(folder, samples=())
    left = sorted(path.name for path in folder.parent.iterdir())
    assert left == ["sources", folder.name], left
print(json.dumps(found))
"""


@pytest.mark.parametrize("way", ["exchange", "two renames"])
def test_a_kill_at_any_step_leaves_the_old_or_the_new_bundle(tmp_path: Path, way: str) -> None:
    """SIGKILL before each rename, removal and exchange in turn, in forks of a clean process."""
    final = tmp_path / "bundles" / "winner"
    final.parent.mkdir()
    command = [sys.executable, "-c", KILLS, str(final), way]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    *killed, (status, state, _) = json.loads(done.stdout)
    assert status == 0 and state == "newer" and len(killed) > 10
    assert all(status == 9 for status, _, _ in killed)
    states = [state for _, state, _ in killed]
    assert {"winner", "newer"} <= set(states) <= {"winner", "newer", "gone"}
    assert states.count("gone") == (0 if way == "exchange" else 1)
    assert all(after in ("winner", "newer") for _, _, after in killed)
    assert all(after == "winner" for _, state, after in killed if state == "gone")


def test_where_names_cannot_be_exchanged_a_failure_brings_the_old_folder_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / "a"
    old.mkdir()
    monkeypatch.setattr(folders, "_exchange", lambda one, other: False)
    with pytest.raises(OSError):
        replace_folder(tmp_path / "missing", old)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    recover_folder(old)
    assert old.is_dir()


def test_replaces_an_older_bundle_also_through_a_link(folder: Path, tmp_path: Path) -> None:
    (folder / "stale").touch()
    (tmp_path / "link").symlink_to(folder)
    colour_bundle(tmp_path / "link", newer())
    assert read_manifest(folder).name == "newer" and not (folder / "stale").exists()
    assert (tmp_path / "link").is_symlink()


def test_will_not_replace_what_is_no_bundle(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "cat.jpg").touch()
    with pytest.raises(UserError, match="cannot replace"):
        colour_bundle(photos)
    with pytest.raises(UserError, match="cannot replace"):
        colour_bundle(photos / "cat.jpg")
    assert {path.name for path in photos.iterdir()} == {"cat.jpg", "sources"}
    (tmp_path / "empty").mkdir()
    colour_bundle(tmp_path / "empty")
    assert read_manifest(tmp_path / "empty").name == "winner"


def test_a_bundle_of_a_run_that_lost_its_manifest_is_replaced(folder: Path, tmp_path: Path) -> None:
    (folder / "manifest.json").unlink()
    with pytest.raises(UserError, match="cannot replace"):
        colour_bundle(folder)
    colour_bundle(folder, is_ours=True)
    assert read_manifest(folder).name == "winner"
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot replace"):
        colour_bundle(tmp_path / "file", is_ours=True)


def test_companions_of_models_are_shipped_and_guarded(tmp_path: Path) -> None:
    code = tmp_path / "model.py"
    code.write_text("print(1)")
    final = tmp_path / "winner"
    made = colour_bundle(final, companions={"timm/model.py": code})
    assert "timm/model.py" in [file.path for file in made.files]
    (final / "timm" / "model.py").write_text("print(2)")
    with pytest.raises(UserError, match="altered"):
        read_manifest(final)


SAMPLE = SampleImage(np.zeros((8, 8, 3), np.uint8), 0, 0)
UNFIT: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "unsafe": (
        {"models": (ModelFile("../m.onnx", "onnx", "fp32"),), "latency": ()},
        {},
        "leads outside",
    ),
    "manifest": ({}, {"companions": {"Manifest.json": __file__}}, "unsafe"),
    "companion": ({}, {"companions": {"../model.py": __file__}}, "leads outside"),
    "golden name": ({"golden": manifest.Golden("../in.npy")}, {}, "leads outside"),
    "the same name": (
        {},
        {"companions": {"ORT_run.py": __file__}},
        "found: 'o\\w+.py' and 'O\\w+.py'",
    ),
    "no source": ({}, {"models": {}}, "differ from those of the manifest"),
    "gone": ({}, {"models": {MODEL: "/nowhere/m.onnx"}}, "read a part"),
    "golden in": ({}, {"golden_input": INPUTS[:, :1]}, "golden inputs"),
    "no golden": ({}, {"golden_input": INPUTS[:0], "golden_output": LOGITS[:0]}, "golden inputs"),
    "golden out": ({}, {"golden_output": LOGITS[:3]}, "golden outputs"),
    "not finite": ({}, {"golden_output": LOGITS * np.nan}, "not finite"),
    "sample": ({}, {"samples": [SampleImage(np.zeros((4, 4, 3), np.uint8), 0, 0)]}, "sample"),
    "grey": ({}, {"samples": [SampleImage(np.zeros((8, 8, 1), np.uint8), 0, 0)]}, "sample"),
    "class": (
        {},
        {"samples": [dataclasses.replace(SAMPLE, predicted=3)]},
        "samples`: expected classes below 3 .*, found 3",
    ),
    "fact": ({"accuracy": (AccuracyFact("other", "d", "test", 1, 1.0),)}, {}, "other"),
    "top1": ({"accuracy": (AccuracyFact(MODEL, "d", "test", 1, 90.0),)}, {}, "top1"),
    "nan": ({"accuracy": (AccuracyFact(MODEL, "d", "test", 1, float("nan")),)}, {}, "JSON|nan"),
}


@pytest.mark.parametrize("case", UNFIT)
def test_parts_that_do_not_fit_are_refused(case: str, tmp_path: Path) -> None:
    fields, parts, message = UNFIT[case]
    if case == "unsafe":
        fields = {**fields, "accuracy": ()}
    made = colour_manifest() if not fields else None
    with pytest.raises((UserError, ValueError), match=f"(?i){message}"):
        colour_bundle(tmp_path / "b", made or colour_manifest(**fields), **parts)
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("parent", ["file", "/proc/hwnas"])
def test_folder_that_cannot_be_written(parent: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    sources = {MODEL: Path(__file__)}
    with pytest.raises(UserError, match="cannot write") as caught:
        bundle.write_bundle(
            tmp_path / parent / "winner",
            colour_manifest(),
            models=sources,
            golden_input=INPUTS,
            golden_output=LOGITS,
        )
    assert parent in str(caught.value)


def test_samples_are_the_pixels_that_were_normalised() -> None:
    pixels = rng(0, "pixels").integers(0, 256, (3, 5, 4, 2), dtype=np.uint8)
    mean, std = (0.2, 0.7), (0.3, 0.1)
    x = ((pixels / 255 - mean) / std).transpose(0, 3, 1, 2).astype(np.float32)
    np.testing.assert_array_equal(denormalise(x, mean, std), pixels)


# --- reading --------------------------------------------------------------------------------------


def tamper_model(folder: Path) -> None:
    data = bytearray((folder / MODEL).read_bytes())
    data[-1] ^= 1
    (folder / MODEL).write_bytes(data)


def set_path(name: str) -> Callable[[Path], None]:
    return lambda folder: edit(folder, lambda data: data["files"][0].update(path=name))


def link_model(folder: Path) -> None:
    shutil.move(folder / MODEL, folder.parent / "outside.onnx")
    (folder / MODEL).symlink_to(folder.parent / "outside.onnx")


def link_models(folder: Path) -> None:
    shutil.move(folder / "models", folder.parent / "outside")
    (folder / "models").symlink_to(folder.parent / "outside")


def link_manifest(folder: Path) -> None:
    shutil.move(folder / "manifest.json", folder.parent / "outside.json")
    (folder / "manifest.json").symlink_to(folder.parent / "outside.json")


BROKEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "altered": (tamper_model, "altered"),
    "missing golden": (lambda f: (f / "golden/input.npy").unlink(), "missing"),
    "missing sample": (lambda f: (f / "samples/00-red.ppm").unlink(), "missing"),
    "parent": (set_path("../x"), "unsafe"),
    "absolute": (set_path("/etc/passwd"), "unsafe"),
    "windows": (set_path("..\\x"), "unsafe"),
    "hidden parent": (set_path("models/../../x"), "unsafe"),
    "control": (set_path("models/\n"), "unsafe"),
    "link": (link_model, "link"),
    "linked folder": (link_models, "link"),
    "linked manifest": (link_manifest, "link|not a bundle"),
    "newer": (lambda f: edit(f, lambda d: d.update(schema_version=99)), "written by a newer hwnas"),
    "no version": (lambda f: edit(f, lambda d: d.pop("schema_version")), "schema_version"),
    "true version": (lambda f: edit(f, lambda d: d.update(schema_version=True)), "schema_version"),
    "unlisted": (lambda f: edit(f, lambda d: d["golden"].update(input="other")), "list"),
    "twice": (lambda f: edit(f, lambda d: d["files"].append(d["files"][0])), "twice"),
    "torn": (lambda f: (f / "manifest.json").write_text('{"schema_version": 1,'), "JSON|not a b"),
    "nan": (lambda f: (f / "manifest.json").write_text('{"a": NaN}'), "NaN"),
    "list": (lambda f: (f / "manifest.json").write_text("[]"), "not a"),
    "deep": (lambda f: (f / "manifest.json").write_text("[" * 99999), "JSON|not a b"),
    "no manifest": (lambda f: (f / "manifest.json").unlink(), "not a bundle"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_bundle_is_refused_by_the_host_and_by_the_kit(folder: Path, case: str) -> None:
    change, message = BROKEN[case]
    change(folder)
    with pytest.raises(UserError, match=f"(?i){message}"):
        read_manifest(folder)
    kit = kit_module("bundle_files")
    with pytest.raises(kit.BundleError, match=f"(?i){message}"):
        kit.read_bundle(folder)


@pytest.mark.parametrize("old", OLD_BUNDLES, ids=lambda path: path.name)
def test_old_bundles_stay_loadable_by_the_host_and_by_the_kit(old: Path) -> None:
    made, read = read_manifest(old), kit_module("bundle_files").read_bundle(old)
    assert made.name == read["name"] == "winner" and len(made.files) == len(read["files"]) == 3
    assert made.models[0].min_agreement == read["models"][0]["min_agreement"] == 1.0


def test_there_is_an_old_bundle_of_every_older_schema() -> None:
    versions = [
        json.loads((p / "manifest.json").read_text())["schema_version"] for p in OLD_BUNDLES
    ]
    assert versions == list(range(1, manifest.MANIFEST_VERSION))


# --- host, kit and schema agree -------------------------------------------------------------------

VALUES = (None, True, -1, 0, 3, 1.5, 10**6, "", "x", "../x", "manifest.json", [], {}, ["x"], [7])


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Path of every value within a JSON value."""
    found = [path] if path else []
    keys = (
        range(len(value)) if isinstance(value, list) else value if isinstance(value, dict) else ()
    )
    for key in keys:
        found += places(value[key], (*path, key))
    return found


def mutations(data: dict[str, Any]) -> list[tuple[tuple[Any, ...], Any]]:
    """(place, new value) or (place, ...) for a removal, for every place of a manifest."""
    paths = places(data)
    changes = [(path, value) for path in paths for value in VALUES]
    changes += [(path, ...) for path in paths]
    holders = [(), *(path for path in paths if isinstance(at(data, path), dict))]
    return changes + [((*path, "surprise"), 1) for path in holders]


def at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


def changed(data: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    copy = json.loads(json.dumps(data))
    holder = at(copy, path[:-1])
    if value is ...:
        del holder[path[-1]]
    else:
        holder[path[-1]] = value
    return copy


@pytest.mark.parametrize("n", [300, pytest.param(None, marks=pytest.mark.full)])
def test_host_kit_and_schema_agree_on_every_mutation(
    n: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the schema refuses the kit refuses; the kit takes what the host takes."""
    monkeypatch.setattr(bundle, "KIT", ())
    folder = tmp_path / "winner"
    counts = ((70, 70), (50, 65), (60, 65))
    fact = AccuracyFact("models/fp32.onnx", "colours", "test", 200, 0.9, counts)
    colour_bundle(folder, colour_manifest(accuracy=(fact,)))
    path, kit = folder / "manifest.json", kit_module("bundle_files")
    data = json.loads(path.read_text())
    schema = json.loads(resource("export", "bundle.schema.json").read_text())
    validator = jsonschema.Draft202012Validator(schema)
    every = mutations(data)
    chosen = rng(0, "mutations").permutation(len(every))[:n]
    n_taken = 0
    for index in chosen:
        made = changed(data, *every[index])
        path.write_text(json.dumps(made))
        by_schema = validator.is_valid(made)
        by_kit = takes(kit.read_bundle, folder, kit.BundleError)
        by_host = takes(read_manifest, folder, UserError)
        if by_kit != by_host:  # the host fills in what is missing
            assert by_host and every[index][1] in (..., {}), every[index]
        assert by_schema or not by_kit, every[index]
        if by_schema != by_kit:  # only what no schema can tell
            assert any(kit.contradictions(made)) or not files_are(folder, made), every[index]
        n_taken += by_kit
    assert 0.02 < n_taken / len(chosen) < 0.5


@pytest.mark.parametrize(
    ("interval_ms", "is_taken"),
    [([0.9, 1.1], True), ([0.0, 2.7], True), ([-0.1, 1.1], False), ([0.0, 0.0], False)],
)
def test_the_interval_of_a_noisy_machine_starts_at_zero(
    interval_ms: list[float], is_taken: bool, tmp_path: Path
) -> None:
    """Host, kit and schema take it: a half-width may exceed the estimate."""
    colour_bundle(tmp_path / "winner", colour_manifest())
    path = tmp_path / "winner" / "manifest.json"
    data = json.loads(path.read_text())
    data["latency"][0] |= {"forecast_ms": 1.0, "interval_ms": interval_ms}
    path.write_text(json.dumps(data))
    schema = json.loads(resource("export", "bundle.schema.json").read_text())
    assert jsonschema.Draft202012Validator(schema).is_valid(data) == is_taken
    kit = kit_module("bundle_files")
    assert takes(kit.read_bundle, tmp_path / "winner", kit.BundleError) == is_taken
    assert takes(read_manifest, tmp_path / "winner", UserError) == is_taken


def takes(read: Callable[[Path], object], folder: Path, refusal: type[Exception]) -> bool:
    try:
        read(folder)
    except refusal:
        return False
    return True


def files_are(folder: Path, data: dict[str, Any]) -> bool:
    """Whether the files are as a valid manifest says."""
    kit = kit_module("bundle_files")
    return all(
        (folder / file["path"]).is_file()
        and kit.sha256(folder / file["path"]) == file["sha256"]
        and (folder / file["path"]).stat().st_size == file["size_bytes"]
        for file in data["files"]
    )


def test_the_reader_of_the_kit_leaves_the_import_path_as_it_is() -> None:
    before = list(sys.path)
    assert shipped_kit.__wrapped__("bundle_files").__name__ == "hwnas_kit_bundle_files"
    assert sys.path == before


@pytest.mark.parametrize(("right", "is_refused"), [(8, False), (9, True), (7, True)])
def test_top1_is_that_of_the_classes(right: int, is_refused: bool) -> None:
    classes = ((right - 3, 6), (3, 4))
    with (
        pytest.raises(ValueError, match=f"accuracy.top1`: expected {right} / 10, .*, found 0.8")
        if is_refused
        else nullcontext()
    ):
        AccuracyFact("model.onnx", "colours", "test", 10, 0.8, classes)
