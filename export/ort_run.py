"""Check a bundle on this device, or classify images with it. Needs numpy and onnxruntime only.

    python ort_run.py --check .          checksums, golden outputs, promised latency
    python ort_run.py photo.npy ...      class of an image (.npy, .ppm, .pgm; others with Pillow)

Exit status: 0 all is well, 1 something to fix, 3 a check ran and fell short.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime

SCHEMA_VERSION = 1
TIMING_PLAN = {
    "schema_version": 1,
    "runtime": "onnxruntime",
    "seed": 0,
    "rounds": 15,
    "min_rounds": 5,
    "time_budget_s": 5.0,
    "target_error": 0.0,
    "reference": "net",
    "warmup_runs": 5,
    "hot_samples": 20,
    "turn_budget_s": 0.5,
}


class BundleError(Exception):
    """Something about the bundle or the image that the user can fix."""


# --- the bundle -----------------------------------------------------------------------------------


def read_bundle(folder):
    """Manifest of a bundle of which every listed file is present and unchanged."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        version = manifest["schema_version"]
        if not isinstance(version, int) or not 1 <= version <= SCHEMA_VERSION:
            raise BundleError(f"schema_version {version}: this kit reads up to {SCHEMA_VERSION}")
        for file in manifest["files"]:
            path = inside(folder, file["path"])
            if not path.is_file():
                raise BundleError(f"{file['path']}: missing")
            if hashlib.sha256(path.read_bytes()).hexdigest() != file["sha256"]:
                raise BundleError(f"{file['path']}: altered (sha256 differs)")
        listed = {file["path"] for file in manifest["files"]}
        named = {model["path"] for model in manifest["models"]} | set(manifest["golden"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BundleError(f"{folder}: not a bundle: {error!r}") from error
    if named - listed:
        raise BundleError(f"{sorted(named - listed)}: not in the manifest's list of files")
    return manifest


def inside(folder, name):
    """Path of a plain relative name below `folder`; refuses roots, `..`, drives and links."""
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts) or set("\\:\0") & set(name):
        raise BundleError(f"{name!r}: unsafe file name")
    path = folder
    for part in parts:
        path = path / part
        if path.is_symlink():
            raise BundleError(f"{name!r}: a link")
    return path


def open_session(folder, model):
    """An ONNX Runtime session on the CPU."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    providers = ["CPUExecutionProvider"]
    return onnxruntime.InferenceSession(str(folder / model["path"]), options, providers=providers)


# --- checks ---------------------------------------------------------------------------------------


def check(folder, with_latency):
    """Print what holds; returns whether everything does."""
    manifest = read_bundle(folder)
    print(f"{manifest['name']}: {len(manifest['files'])} files, checksums ok")
    golden_input, expected = (
        np.load(folder / manifest["golden"][key], allow_pickle=False) for key in ("input", "output")
    )
    models = {m["path"]: m for m in manifest["models"] if m["format"] in ("onnx", "ort")}
    good = True
    for model in models.values():
        good &= check_golden(folder, model, golden_input, expected)
    for fact in manifest["latency"] if with_latency else ():
        if fact["model"] in models and fact["device"]["runtime"] == "onnxruntime":
            good &= check_latency(folder, models[fact["model"]], fact)
    return good


def check_golden(folder, model, golden_input, expected):
    """Whether the model gives the golden logits, within its tolerance."""
    session = open_session(folder, model)
    name, step = session.get_inputs()[0].name, model["batch"] or len(golden_input)
    batches = [golden_input[i : i + step] for i in range(0, len(golden_input) // step * step, step)]
    found = np.concatenate([session.run(None, {name: x})[0] for x in batches])
    expected = expected[: len(found)]
    relative = float(np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-30))
    agreement = float((found.argmax(1) == expected.argmax(1)).mean())
    good = bool(relative <= model["parity_tolerance"])  # False for NaN
    print(
        f"{model['path']}: golden outputs {'ok' if good else 'DIFFER'}: relative difference "
        f"{relative:.1e} (allowed {model['parity_tolerance']:.0e}), top-1 agreement {agreement:.1%}"
    )
    return good


def check_latency(folder, model, fact):
    """Whether the median latency here is within what the manifest promises for its device."""
    device = fact["device"]
    if device["provider"] not in onnxruntime.get_available_providers():
        print(f"{model['path']}: no {device['provider']} here, latency not checked")
        return True
    here = measure_ms(folder / model["path"], device)
    bounds = [fact["interval_ms"][1]] if fact["interval_ms"] else []
    bounds += [fact["measured_ms"] * 1.05] if fact["measured_ms"] else []
    good = not bounds or here <= max(bounds)
    promised = ", ".join(
        f"{label} {fact[key]:.3f} ms"
        for label, key in (("forecast", "forecast_ms"), ("measured", "measured_ms"))
        if fact[key]
    )
    print(
        f"{model['path']}: {here:.3f} ms here; on {device['name']} ({fact['host']}, "
        f"{device['threads']} thread(s)): {promised or 'nothing promised'}: "
        f"{'holds' if good else 'does NOT hold here'}"
    )
    return good


def measure_ms(path, device):
    """Median over rounds of each round's fastest hot run, timed by bench.py, which lies beside."""
    keys = ("provider", "precision", "threads", "batch")
    plan = dict(TIMING_PLAN, **{key: device[key] for key in keys})
    model = path.read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        plan["items"] = [
            {"id": "net", "file": "net.onnx", "sha256": hashlib.sha256(model).hexdigest()}
        ]
        plan_path, results = Path(folder, "plan.json"), Path(folder, "results.jsonl")
        Path(folder, "net.onnx").write_bytes(model)
        plan_path.write_text(json.dumps(plan))
        bench = Path(__file__).resolve().with_name("bench.py")
        command = [sys.executable, str(bench), str(plan_path), "--out", str(results)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise BundleError(f"bench.py failed: {done.stderr.strip()[-500:]}")
        lines = [json.loads(line) for line in results.read_text().splitlines()[1:]]
    best_ns = [min(turn[3:]) for line in lines for turn in line.get("turns", ())]
    return float(np.median(best_ns)) / 1e6


# --- images ---------------------------------------------------------------------------------------


def read_image(path):
    """Pixels of an image file as float32 [H, W, C] in [0, 1]."""
    try:
        if path.suffix == ".npy":
            pixels = np.load(path, allow_pickle=False)
        elif path.suffix in (".ppm", ".pgm"):
            pixels = read_netpbm(path.read_bytes())
        else:
            from PIL import Image

            image = Image.open(path)
            pixels = np.asarray(image if image.mode == "L" else image.convert("RGB"))
    except ImportError as error:
        raise BundleError(f"{path}: needs Pillow; or give .npy, .ppm or .pgm") from error
    except (OSError, ValueError, EOFError, IndexError) as error:
        raise BundleError(f"{path}: cannot read: {error}") from error
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    if pixels.ndim != 3 or 0 in pixels.shape:
        raise BundleError(f"{path}: expected [H, W] or [H, W, C], found {pixels.shape}")
    if pixels.dtype == np.uint8:
        return pixels.astype(np.float32) / 255
    return pixels.astype(np.float32)


def read_netpbm(data):
    """uint8 [H, W, C] of a binary .ppm (P6) or .pgm (P5) with 8-bit samples."""
    fields, at = [], 0
    while len(fields) < 4:
        while data[at : at + 1].isspace():
            at += 1
        if data[at : at + 1] == b"#":
            at = data.index(b"\n", at)
            continue
        end = at
        while not data[end : end + 1].isspace():
            end += 1
            if end > len(data):
                raise ValueError("header is cut off")
        fields.append(data[at:end])
        at = end
    magic, (width, height, depth) = fields[0], map(int, fields[1:])
    if magic not in (b"P5", b"P6") or depth != 255:
        raise ValueError("expected P5 or P6 with 255 levels")
    shape = (height, width, 3 if magic == b"P6" else 1)
    return np.frombuffer(data, np.uint8, int(np.prod(shape)), at + 1).reshape(shape)


def preprocess(pixels, spec):
    """[H, W, C] in [0, 1] to the model's input [1, C, px, px], as the manifest's spec says."""
    channels = spec["shape"][0]
    if pixels.shape[2] == 1 and channels == 3:
        pixels = np.repeat(pixels, 3, axis=2)
    if pixels.shape[2] != channels:
        raise BundleError(f"expected {channels} channels, found {pixels.shape[2]}")
    side = min(pixels.shape[:2])
    top, left = (pixels.shape[0] - side) // 2, (pixels.shape[1] - side) // 2
    pixels = pixels[top : top + side, left : left + side]
    for px in spec["resize_px"]:
        weights = resize_weights(pixels.shape[0], px)
        pixels = np.einsum("ph,hwc,qw->pqc", weights, pixels, weights, optimize=True)
    pixels = (pixels - np.asarray(spec["mean"])) / np.asarray(spec["std"])
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], dtype=np.float32)


def resize_weights(size, px):
    """[px, size]: bilinear interpolation, widened to an antialiasing triangle when shrinking."""
    scale = size / px
    reach = max(scale, 1.0)
    centres = (np.arange(px) + 0.5) * scale
    distance = np.abs(np.arange(size) + 0.5 - centres[:, None]) / reach
    weights = np.maximum(1 - distance, 0)
    return weights / weights.sum(1, keepdims=True)


def classify(folder, paths, top):
    """Print the `top` classes of every image, with softmax probabilities."""
    manifest = read_bundle(folder)
    models = [m for m in manifest["models"] if m["format"] in ("onnx", "ort")]
    if not models:
        raise BundleError("the bundle holds no model for ONNX Runtime")
    session = open_session(folder, models[0])
    names = manifest["input"]["class_names"]
    for path in paths:
        x = preprocess(read_image(path), manifest["input"])
        x = np.repeat(x, models[0]["batch"] or 1, axis=0)
        logits = session.run(None, {session.get_inputs()[0].name: x})[0][0].astype(np.float64)
        probabilities = np.exp(logits - logits.max())
        probabilities /= probabilities.sum()
        best = np.argsort(-probabilities)[:top]
        print(f"{path}: " + ", ".join(f"{names[i]} {probabilities[i]:.1%}" for i in best))


def main():
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", nargs="*", type=Path, help="images, or the bundle with --check")
    parser.add_argument("--check", action="store_true", help="verify the bundle on this device")
    parser.add_argument("--no-latency", action="store_true", help="--check without timing")
    parser.add_argument("--bundle", type=Path, default=Path(__file__).resolve().parent)
    parser.add_argument("--top", type=int, default=3, help="classes printed per image")
    arguments = parser.parse_args()
    try:
        if arguments.check:
            folder = arguments.images[0] if arguments.images else arguments.bundle
            return 0 if check(folder, not arguments.no_latency) else 3
        if not arguments.images:
            parser.error("give images, or --check")
        classify(arguments.bundle, arguments.images, arguments.top)
    except BundleError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
