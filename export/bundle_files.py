"""Reads a bundle: checks manifest.json by the schema in this folder, and all files by hash."""

import hashlib
import json
import math
import re
import tokenize
from pathlib import Path

import numpy as np
from bench_json import strict_json

SCHEMA_VERSION = 4  # newest supported version; version 1 has no samples and no min_agreement
MOST_TOLERANCE = {"fp32": 0.03, "fp16": 0.03, "int8": 0.3}  # of a manifest, which may be foreign
HERE = Path(__file__).resolve().parent
KINDS = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
}


class BundleError(Exception):
    """A problem with the bundle, the images or the runtime that the user can fix."""


# --- the manifest ---------------------------------------------------------------------------------


def read_bundle(folder):
    """Manifest of a bundle after checking that every listed file exists and is unchanged."""
    folder = Path(folder)
    manifest = read_manifest(folder / "manifest.json")
    for file in manifest["files"]:
        path = inside(folder, file["path"])
        if not path.is_file():
            raise BundleError(f"{file['path']}: missing; fix: copy the bundle again")
        if path.stat().st_size != file["size_bytes"] or sha256(path) != file["sha256"]:
            raise BundleError(f"{file['path']}: altered (sha256 differs); fix: copy it again")
    return manifest


def read_manifest(path):
    """Reads and checks a manifest, but not its files; adds defaults for missing fields."""
    try:
        if path.is_symlink():
            raise BundleError(f"{path}: a link")
        if not path.is_file():
            raise BundleError(f"{path.parent}: not a bundle: no manifest.json")
        manifest = strict_json(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{path.parent}: not a bundle: manifest.json: {error}") from error
    version = manifest.get("schema_version") if isinstance(manifest, dict) else None
    if type(version) is not int or version < 1:
        raise BundleError(f"{path}: not a bundle: no valid schema_version: {version!r:.40}")
    if version > SCHEMA_VERSION:
        raise BundleError(
            f"{path}: written by a newer hwnas: schema_version {version}, this kit reads up to "
            f"{SCHEMA_VERSION}; fix: use the kit in that bundle"
        )
    schema = json.loads((HERE / "bundle.schema.json").read_text(encoding="utf-8"))
    found = list(problems(manifest, schema, schema)) or list(contradictions(manifest))
    if found:
        more = f" (and {len(found) - 5} more)" if len(found) > 5 else ""
        raise BundleError(f"{path}: not a valid manifest: {'; '.join(found[:5])}{more}")
    manifest.setdefault("samples", [])
    for model in manifest["models"]:
        model.setdefault("min_agreement", 1.0)
        model.setdefault("least_runtime", None)
        model.setdefault("layout", "NCHW")
        model.setdefault("torch_rounding", None)
    for fact in manifest["accuracy"]:
        fact.setdefault("classes", [])
    return manifest


def contradictions(manifest):
    """Problems of a manifest that a JSON schema cannot express."""
    spec, golden = manifest["input"], manifest["golden"]
    n_channels, *size = spec["shape"]
    if not len(spec["mean"]) == len(spec["std"]) == n_channels:
        yield "input: mean and std must have one value per channel"
    if size != [spec["resize_px"][-1]] * 2:
        yield "input: the last of resize_px must be the height and the width"
    listed = [file["path"] for file in manifest["files"]]
    if len(set(listed)) != len(listed):
        yield "files: lists a file twice"
    models = {model["path"] for model in manifest["models"]}
    samples = manifest.get("samples", [])
    named = models | {golden["input"], golden["output"]} | {sample["path"] for sample in samples}
    for name in sorted(named - set(listed)):
        yield f"files: does not list {name!r}"
    for name in listed:
        if name.lower() == "manifest.json":
            yield f"files: unsafe file name {name!r}"
    for name in sorted({fact["model"] for fact in manifest["latency"] + manifest["accuracy"]}):
        if name not in models:
            yield f"models: does not list {name!r}"
    for model in manifest["models"]:
        if model["parity_tolerance"] > (most := MOST_TOLERANCE[model["precision"]]):
            yield f"models: {model['path']}: parity_tolerance is at most {most}"
    for fact in manifest["accuracy"]:
        yield from unlike_classes(fact, len(spec["class_names"]))
    for sample in samples:
        if max(sample["label"], sample["predicted"]) >= len(spec["class_names"]):
            yield f"samples: {sample['path']}: a class without a name"


def unlike_classes(fact, n_classes):
    """Contradictions between the counts of the classes and those of all images."""
    classes = fact.get("classes", [])
    if not classes:
        return
    if len(classes) != n_classes:
        yield f"accuracy: {len(classes)} classes, expected {n_classes}"
    right, n = (sum(pair[i] for pair in classes) for i in (0, 1))
    if any(a > b for a, b in classes) or n != fact["n_images"]:
        yield "accuracy: the counts of the classes do not add up to those of all images"
    elif abs(right - fact["top1"] * n) > 0.5:
        yield "accuracy: top1 is not the share that the counts of the classes give"


def inside(folder, name):
    """Path of a plain relative name below `folder`; refuses roots, `..`, drives and links."""
    parts = name.split("/")
    unsafe = any(char in "\\:\x7f" or char < " " for char in name)
    if unsafe or any(part in ("", ".", "..") for part in parts):
        raise BundleError(f"{name!r}: unsafe file name")
    path = folder
    for part in parts:
        path = path / part
        if path.is_symlink():
            raise BundleError(f"{name!r}: a link")
    return path


def sha256(path):
    """sha256 of a file, in hex."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        for chunk in iter(lambda: stream.read(1 << 20), b""):
            digest.update(chunk)
    return digest.hexdigest()


# --- JSON schema ----------------------------------------------------------------------------------


def problems(value, schema, root, at="manifest"):
    """Problems of a JSON value, for the part of JSON Schema that bundle.schema.json uses."""
    if "$ref" in schema:
        schema = root["$defs"][schema["$ref"].rsplit("/", 1)[1]]
    if "anyOf" in schema:
        if all(any(problems(value, choice, root, at)) for choice in schema["anyOf"]):
            yield f"{at}: found {value!r:.60}"
        return
    if "enum" in schema and not any(same(value, choice) for choice in schema["enum"]):
        yield f"{at}: expected one of {schema['enum']}, found {value!r:.60}"
    if "type" in schema and not is_kind(value, schema["type"]):
        yield f"{at}: expected {schema['type']}, found {value!r:.60}"
    elif isinstance(value, str):
        yield from problems_of_text(value, schema, at)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield from problems_of_number(value, schema, at)
    elif isinstance(value, list):
        if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
            yield f"{at}: has {len(value)} items"
        heads = schema.get("prefixItems", ())
        for index, item in enumerate(value):
            own = heads[index] if index < len(heads) else schema.get("items", {})
            yield from problems(item, own, root, f"{at}[{index}]")
    elif isinstance(value, dict):
        known, others = schema.get("properties", {}), schema.get("additionalProperties", {})
        for key in schema.get("required", ()):
            if key not in value:
                yield f"{at}: lacks {key}"
        for key, item in value.items():
            if key not in known and others is False:
                yield f"{at}: unknown key {key!r:.60}"
            else:
                yield from problems(item, known.get(key, others or {}), root, f"{at}.{key}")


def problems_of_text(value, schema, at):
    """Problems of length and pattern."""
    if not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value)):
        yield f"{at}: has {len(value)} characters"
    if not re.search(schema.get("pattern", ""), value):
        yield f"{at}: unsafe or malformed: {value!r:.60}"


def problems_of_number(value, schema, at):
    """Problems of bounds."""
    low, above = schema.get("minimum", value), schema.get("exclusiveMinimum")
    if not low <= value <= schema.get("maximum", value) or (above is not None and value <= above):
        yield f"{at}: out of range: {value!r:.60}"


def is_kind(value, kinds):
    """Whether a value has one of the JSON types; true and false are not numbers."""
    names = [kinds] if isinstance(kinds, str) else kinds
    return any(
        isinstance(value, KINDS[name]) and (name == "boolean" or not isinstance(value, bool))
        for name in names
    )


def same(value, other):
    """Equality that distinguishes True from 1."""
    return type(value) is type(other) and value == other


# --- golden data ----------------------------------------------------------------------------------


def read_golden(folder, manifest):
    """Inputs [n, C, H, W] and their torch logits [n, classes], float32."""
    spec = manifest["input"]
    inputs, expected = (read_array(folder, manifest["golden"][key]) for key in ("input", "output"))
    shapes = ((len(inputs), *spec["shape"]), (len(inputs), len(spec["class_names"])))
    if (inputs.shape, expected.shape) != shapes or len(inputs) == 0:
        found = f"{inputs.shape} and {expected.shape}"
        raise BundleError(
            f"golden data: expected shapes {shapes[0]} and {shapes[1]}, found {found}"
        )
    if not (np.isfinite(inputs).all() and np.isfinite(expected).all()):
        raise BundleError("golden data: not finite")
    return inputs, expected


def read_array(folder, name):
    """Reads a float32 .npy file of the bundle without unpickling."""
    try:
        with open(inside(folder, name), "rb") as stream:
            array = read_npy(stream, inside(folder, name).stat().st_size)
    except (OSError, ValueError) as error:
        raise BundleError(f"{name}: cannot read: {error}") from error
    if array.dtype != np.float32 or array.ndim < 1:
        raise BundleError(f"{name}: expected a float32 array")
    return array


def read_npy(stream, n_bytes):
    """Reads a .npy array of `n_bytes` bytes, without unpickling or trusting its header.

    Raises ValueError if the data are not a .npy array, or its size differs from the header.
    """
    try:
        version = np.lib.format.read_magic(stream)
        headers = np.lib.format.read_array_header_1_0, np.lib.format.read_array_header_2_0
        shape, _, dtype = headers[version == (2, 0)](stream)
        size = math.prod(shape) * dtype.itemsize
        if min(shape, default=0) < 0 or size != n_bytes - stream.tell():
            whole = f"{size + stream.tell()} bytes for {dtype} {list(shape)}"
            raise ValueError(f"expected {whole}, found {n_bytes} bytes")
        stream.seek(0)
        return np.lib.format.read_array(stream, allow_pickle=False)
    except (EOFError, OverflowError, SyntaxError, TypeError, tokenize.TokenError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
