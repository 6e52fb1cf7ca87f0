"""A bundle is one folder that deploys a network: models, golden data, the kit, and a manifest.

It appears under its final name whole or not at all: it is built in a folder beside it and renamed.
"""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from hwnas.core.errors import UserError
from hwnas.core.records import dump, load
from hwnas.core.resources import resource
from hwnas.core.store import file_hash, read_json, write_bytes, write_json
from hwnas.exporters.manifest import BundleFile, Manifest

__all__ = ["MANIFEST_NAME", "read_manifest", "write_bundle"]

MANIFEST_NAME = "manifest.json"
KIT = ("ort_run.py", "bench.py", "bench_host.py", "bench_protocol.py", "run_onnxruntime.py")


def write_bundle(
    folder: Path,
    manifest: Manifest,
    *,
    models: Mapping[str, Path],
    golden_input: NDArray[np.float32],
    golden_output: NDArray[np.float32],
    companions: Mapping[str, Path] | None = None,
) -> Manifest:
    """Write the bundle `folder`, replacing an older one; returns the manifest with its files.

    models: where the content of each `manifest.models[i].path` is now; companions: likewise of
    files that a model needs beside it (code, a definition). golden_input: [n, C, H, W] as the
    network sees it; golden_output: [n, classes], torch's logits for it.

    Raises:
        UserError: a model of the manifest has no source or an unsafe name, golden data do not fit
            the input spec, or the folder cannot be written.
    """
    folder = Path(folder)
    companions = companions or {}
    _check_parts(manifest, models, golden_input, golden_output)
    for name in companions:
        _check_name(name, "companions")
    building = folder.with_name(f".{folder.name}.building")
    replaced = folder.with_name(f".{folder.name}.replaced")
    try:
        for leftover in (building, replaced):
            shutil.rmtree(leftover, ignore_errors=True)
        for name, source in {**models, **companions}.items():
            write_bytes(building / name, Path(source).read_bytes())
        write_bytes(building / manifest.golden.input, _npy(golden_input))
        write_bytes(building / manifest.golden.output, _npy(golden_output))
        for name in KIT:
            write_bytes(building / name, resource("export", name).read_bytes())
        manifest = replace(manifest, files=tuple(_inventory(building)))
        write_json(building / MANIFEST_NAME, dump(manifest))
        if folder.exists():
            os.rename(folder, replaced)
        os.rename(building, folder)
    except OSError as error:
        raise UserError("cannot write the bundle", found=error, where=folder) from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
    shutil.rmtree(replaced, ignore_errors=True)
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a bundle whose files are all there and unchanged.

    Raises:
        UserError: a newer or broken manifest, a name that leads out of the bundle, a link, or a
            file that is missing, altered, or not listed.
    """
    folder = Path(folder)
    path = folder / MANIFEST_NAME
    if path.is_symlink() or not path.is_file():
        raise UserError("not a bundle", expected=f"a file {MANIFEST_NAME}", where=folder)
    manifest = load(Manifest, read_json(path), where=path)
    listed = [file.path for file in manifest.files]
    if len(set(listed)) != len(listed):
        raise UserError("manifest lists a file twice", where=path)
    for file in manifest.files:
        _check_file(folder, file)
    needed = [model.path for model in manifest.models]
    for name in (*needed, manifest.golden.input, manifest.golden.output):
        if name not in listed:
            raise UserError("manifest names a file that it does not list", found=name, where=path)
    return manifest


def _check_parts(
    manifest: Manifest,
    models: Mapping[str, Path],
    golden_input: NDArray[np.float32],
    golden_output: NDArray[np.float32],
) -> None:
    names = [model.path for model in manifest.models]
    if sorted(names) != sorted(models):
        raise UserError("models do not fit the manifest", expected=names, found=sorted(models))
    for name in names:
        _check_name(name, "manifest.models")
    if golden_input.shape[1:] != manifest.input.shape:
        raise UserError(
            "golden inputs do not fit the model",
            expected=("n", *manifest.input.shape),
            found=golden_input.shape,
        )
    shape = (len(golden_input), len(manifest.input.class_names))
    if golden_output.shape != shape:
        raise UserError("golden outputs do not fit", expected=shape, found=golden_output.shape)


def _npy(array: NDArray[np.float32]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.ascontiguousarray(array, dtype=np.float32), allow_pickle=False)
    return stream.getvalue()


def _inventory(folder: Path) -> Iterator[BundleFile]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            name = path.relative_to(folder).as_posix()
            yield BundleFile(name, file_hash(path), path.stat().st_size)


def _check_name(name: str, where: object) -> None:
    """Only plain relative names below the bundle: no root, drive, backslash, `..` or `.` part."""
    parts = name.split("/")
    if (
        PurePosixPath(name).is_absolute()
        or any(part in ("", ".", "..") for part in parts)
        or any(char in name for char in "\\:\0")
        or name == MANIFEST_NAME
    ):
        raise UserError(
            "unsafe file name in a bundle",
            expected="a relative path inside the bundle",
            found=repr(name),
            where=where,
        )


def _check_file(folder: Path, file: BundleFile) -> None:
    _check_name(file.path, folder / MANIFEST_NAME)
    path = folder / file.path
    below = [path, *path.parents][: file.path.count("/") + 1]
    if any(part.is_symlink() for part in below):
        raise UserError("a bundle must not contain links", where=path)
    if not path.is_file():
        raise UserError("a file of the bundle is missing", where=path, fix="export it again")
    if path.stat().st_size != file.size_bytes or file_hash(path) != file.sha256:
        raise UserError(
            "a file of the bundle was altered",
            expected=f"{file.size_bytes} bytes, sha256 {file.sha256}",
            found=f"{path.stat().st_size} bytes, sha256 {file_hash(path)}",
            where=path,
            fix="export it again, or copy the bundle again",
        )
