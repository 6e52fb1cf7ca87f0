"""Writes and reads bundles: models, golden data, the kit, and a manifest in one folder.

A bundle is written atomically: it is built in a folder next to its destination, which is then
renamed.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hwnas.core.confined import check_folder, check_name
from hwnas.core.errors import UserError
from hwnas.core.folders import recover_folder, replace_folder
from hwnas.core.records import dump, load
from hwnas.core.resources import kit_module, resource
from hwnas.core.store import explained, file_hash, read_json, write_bytes, write_json
from hwnas.exporters.bundle_readme import readme
from hwnas.exporters.manifest import MANIFEST_VERSION, BundleFile, Manifest
from hwnas.exporters.samples import SampleImage, npy, sample_files

__all__ = ["KIT", "MANIFEST_NAME", "read_manifest", "write_bundle"]

MANIFEST_NAME = "manifest.json"
README = "README.md"
AGAIN = "export or copy the bundle again"
KIT = (
    README,
    "bench.py",
    "bench_cuda.py",
    "bench_host.py",
    "bench_json.py",
    "bench_protocol.py",
    "bench_tensorrt.py",
    "bundle.schema.json",
    "bundle_checks.py",
    "bundle_cli.py",
    "bundle_files.py",
    "bundle_images.py",
    "bundle_latency.py",
    "bundle_precision.py",
    "bundle_statistics.py",
    "bundle_tflite.py",
    "device_run.py",
    "engine.schema.json",
    "ort_run.py",
    "photo_rule.py",
    "run_litert.py",
    "run_onnxruntime.py",
    "run_openvino.py",
    "run_tensorrt.py",
    "run_tensorrt_rtx.py",
    "run_torch.py",
    "trt_build.py",
    "trt_run.py",
)


def write_bundle(
    folder: Path,
    manifest: Manifest,
    *,
    models: Mapping[str, Path],
    golden_input: NDArray[np.float32],
    golden_output: NDArray[np.float32],
    companions: Mapping[str, Path] | None = None,
    samples: Sequence[SampleImage] = (),
    is_ours: bool = False,
) -> Manifest:
    """Writes the bundle `folder`, or replaces it, and returns the manifest with its files.

    models: maps the `path` of every model of the manifest to the file to copy.
    companions: the same for other files that a model needs (code, a definition).
    golden_input, golden_output: normalised images [n, C, H, W], and their torch logits.
    samples: test images before `resize_px[1:]` and normalisation.
    is_ours: replace `folder` even if it has no manifest, as a damaged bundle in a run folder.

    Raises:
        UserError: a model of the manifest has no source or an unsafe name, golden data or samples
            do not fit the input spec, or `folder` is no bundle or not writable (left unchanged).
    """
    folder, companions = Path(os.path.realpath(folder)), companions or {}
    encoded = list(sample_files(samples, manifest.input.class_names))
    manifest = replace(manifest, samples=tuple(file for file, _ in encoded), files=())
    manifest = load(Manifest, dump(manifest, versioned=False), where=folder, versioned=False)
    _check_golden(manifest, golden_input, golden_output)
    _check_samples(manifest, samples)
    names = [model.path for model in manifest.models]
    _check_models(names, models, folder)
    parts: dict[str, Path | bytes] = {
        manifest.golden.input: npy(golden_input.astype(np.float32)),
        manifest.golden.output: npy(golden_output.astype(np.float32)),
        **{file.path: content for file, content in encoded},
        **{name: resource("export", name) for name in KIT},
        README: readme(manifest, _kit_page()),
    }
    _check_names([*names, *companions, *parts])
    parts |= {**models, **companions}
    building = folder.with_name(f".{folder.name}.building")
    with explained("write the bundle", folder):
        recover_folder(folder)
        if folder.exists() and not ((is_ours and folder.is_dir()) or _may_be_replaced(folder)):
            raise UserError(
                "cannot replace a folder that is not a bundle",
                expected=f"nothing, or a folder with a {MANIFEST_NAME}",
                where=folder,
                fix="give another name, or move the folder",
            )
        shutil.rmtree(building, ignore_errors=True)  # left by a killed process
        try:
            for name, part in parts.items():
                write_bytes(building / name, _content(part))
            manifest = replace(manifest, files=tuple(_inventory(building)))
            write_json(building / MANIFEST_NAME, dump(manifest, version=MANIFEST_VERSION))
            replace_folder(building, folder)
        finally:
            shutil.rmtree(building, ignore_errors=True)
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """Reads a manifest, and checks that all files of the bundle exist and are unchanged.

    Raises:
        UserError: a newer or broken manifest, a name that leads out of the bundle, a link, pipe or
            device in it, or a missing, modified or unlisted file.
    """
    folder = Path(folder)
    path = folder / MANIFEST_NAME
    with explained("look into the bundle", folder):
        is_there = path.is_file() and not path.is_symlink()
    if not is_there:
        inside = sorted(folder.glob(f"bundles/*/*/{MANIFEST_NAME}"))
        raise UserError(
            "not a bundle",
            expected=f"a file {MANIFEST_NAME}",
            found="a run folder with bundles" if inside else None,
            where=folder,
            fix=f"give a bundle of this run, such as {inside[0].parent}" if inside else None,
        )
    check_folder(folder)
    manifest = load(Manifest, read_json(path), where=path, newest=MANIFEST_VERSION)
    kit = kit_module("bundle_files")
    try:  # the schema next to the kit is the contract
        kit.read_manifest(path)
    except kit.BundleError as error:
        raise UserError(
            "the manifest of the bundle is not valid",
            found=str(error).removeprefix(f"{path}: ").removeprefix("not a valid manifest: "),
            where=path,
            fix=AGAIN,
        ) from error
    listed = [file.path for file in manifest.files]
    if len(set(listed)) != len(listed):
        twice = sorted({name for name in listed if listed.count(name) > 1})
        what = "the manifest lists a file twice"
        raise UserError(what, found=twice, where=f"{path}: files", fix=AGAIN)
    with explained("read the bundle", folder):
        for file in manifest.files:
            _check_file(folder, file)
    golden = manifest.golden
    needed = {golden.input, golden.output}
    needed |= {model.path for model in manifest.models}
    needed |= {sample.path for sample in manifest.samples}
    for name in sorted(needed):
        if name not in listed:
            what = "the manifest uses a file that its list `files` lacks"
            raise UserError(what, found=name, where=path, fix=AGAIN)
    return manifest


def _kit_page() -> str:
    """The page of the kit, without the sections on scripts that a bundle does not contain."""
    sections = resource("export", README).read_text("utf-8").split("\n## ")
    named = [re.findall(r"`(\w+\.py)`", section.split("\n")[0]) for section in sections]
    kept = [text for text, names in zip(sections, named, strict=True) if {*names} <= {*KIT}]
    return "\n## ".join(kept)


def _check_models(names: list[str], models: Mapping[str, Path], folder: Path) -> None:
    if sorted(names) != sorted(models):
        wanted, found = (", ".join(sorted(of)) or "no model" for of in (names, models))
        what = "the given model files differ from those of the manifest"
        fix = "give one file for every `path` of `manifest.models`"
        parts = {"expected": f"files for {wanted}", "found": f"files for {found}", "fix": fix}
        raise UserError(what, where=folder, **parts)


def _check_golden(
    manifest: Manifest, inputs: NDArray[np.float32], outputs: NDArray[np.float32]
) -> None:
    if inputs.shape[1:] != manifest.input.shape or len(inputs) == 0:
        raise UserError(
            "golden inputs do not have the input shape of the model",
            expected=f"shape [n, {', '.join(map(str, manifest.input.shape))}], n > 0",
            found=f"shape {list(inputs.shape)}",
        )
    shape = (len(inputs), len(manifest.input.class_names))
    if outputs.shape != shape:
        raise UserError(
            "golden outputs do not have the shape of the logits",
            expected=f"shape {list(shape)}",
            found=f"shape {list(outputs.shape)}",
        )
    if not (np.isfinite(inputs).all() and np.isfinite(outputs).all()):
        n_in, n_out = (int((~np.isfinite(values)).sum()) for values in (inputs, outputs))
        raise UserError(
            "golden data are not finite",
            expected="finite numbers",
            found=f"{n_in} inputs and {n_out} outputs are infinite or NaN",
            where="golden_input, golden_output",
        )


def _check_samples(manifest: Manifest, samples: Sequence[SampleImage]) -> None:
    px = manifest.input.resize_px[0]
    expected = (px, px, manifest.input.shape[0])
    for sample in samples:
        if sample.pixels.shape != expected or sample.pixels.dtype != np.uint8:
            raise UserError(
                "a sample image does not fit the model",
                expected=f"pixels of uint8 with shape {list(expected)}",
                found=f"pixels of {sample.pixels.dtype} with shape {list(sample.pixels.shape)}",
            )


def _content(part: Path | bytes) -> bytes:
    if isinstance(part, bytes):
        return part
    with explained("read a part of the bundle", Path(part)):
        return Path(part).read_bytes()


def _may_be_replaced(folder: Path) -> bool:
    """Whether the folder is an older bundle or empty, and not some other data of the user."""
    return folder.is_dir() and ((folder / MANIFEST_NAME).is_file() or not any(folder.iterdir()))


def _inventory(folder: Path) -> Iterator[BundleFile]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            name = path.relative_to(folder).as_posix()
            yield BundleFile(name, file_hash(path), path.stat().st_size)


def _check_names(names: Iterable[str]) -> None:
    """Checks that names are safe, and that no two differ only in upper and lower case."""
    seen: dict[str, str] = {}
    for name in names:
        _check_name(name, "the parts of the bundle")
        if name.lower() in seen:
            raise UserError(
                "two files of the bundle have names that some file systems do not tell apart",
                expected="names that differ in more than upper and lower case",
                found=f"{seen[name.lower()]!r} and {name!r}",
            )
        seen[name.lower()] = name


def _check_name(name: str, where: object) -> None:
    """Refuses names that `confined.check_name` refuses, drives, and the name of the manifest."""
    check_name(name, where=where)
    if any(char in ":\x7f" for char in name) or name.lower() == MANIFEST_NAME:
        raise UserError(
            "unsafe file name in a bundle",
            expected="a relative path inside the bundle",
            found=repr(name),
            where=where,
        )


def _check_file(folder: Path, file: BundleFile) -> None:
    _check_name(file.path, folder / MANIFEST_NAME)
    path = folder / file.path
    if not path.is_file():
        raise UserError(
            "a file of the bundle is missing",
            expected=f"a file of {file.size_bytes} bytes, which {MANIFEST_NAME} lists",
            found="something that is not a file" if path.exists() else "no such file",
            where=path,
            fix=AGAIN,
        )
    if path.stat().st_size != file.size_bytes or file_hash(path) != file.sha256:
        raise UserError(
            "a file of the bundle was altered",
            expected=f"{file.size_bytes} bytes with the sha256 in {MANIFEST_NAME}",
            found=f"{path.stat().st_size} bytes with another sha256",
            where=path,
            fix=AGAIN,
        )
