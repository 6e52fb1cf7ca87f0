#!/usr/bin/env python3
"""Check the model of a bundle's device, on this device, in the runtime of the device.

    python device_run.py --check .                  checksums, precision, golden outputs, latency
    python device_run.py --check . --data PHOTOS    and accuracy: photos in a folder per class
    python device_run.py photo.ppm ...              class of a .npy or .ppm (others need Pillow)

A bundle is made for one device. The manifest has its runtime, provider and precision, and its first
model is the file for this device. Needs numpy and that runtime. The exit status is as in
ort_run.py.
"""

import argparse
import json
import sys
from pathlib import Path

try:
    import numpy as np
except ImportError as error:
    sys.exit(f"error: {error}; fix: python -m pip install numpy")

import bench
import bundle_cli
from bench_protocol import KitError
from bundle_checks import check_outputs, finding
from bundle_files import BundleError, inside, read_npy
from bundle_latency import check_latencies
from bundle_precision import precision_of


class ModelError(BundleError):
    """The runtime refuses the model, or its inputs."""


class Predictor:
    """A model file on a device; calling it with inputs [n, C, H, W], any n, returns logits."""

    def __init__(self, path, device):
        keys = ("runtime", "provider", "threads", "batch", "precision")
        try:
            runner = bench.open_runner({key: device[key] for key in keys})
        except KitError as error:
            raise BundleError(str(error)) from error
        self._name, self._batch = f"{path.name}: {device['runtime']}", device["batch"]
        try:
            self._predict = runner.open(path)
        except Exception as error:  # runtimes raise dozens of unrelated classes
            raise ModelError(f"{self._name} cannot load it: {error}") from error

    def __call__(self, x):
        """Logits of inputs x; the last batch is filled with its last input."""
        parts = [x[start : start + self._batch] for start in range(0, len(x), self._batch)]
        return np.concatenate([self._run(part) for part in parts])

    def _run(self, x):
        filled = np.concatenate([x, np.repeat(x[-1:], self._batch - len(x), axis=0)])
        try:
            logits = self._predict(np.ascontiguousarray(filled, dtype=np.float32))
        except Exception as error:  # as above
            raise ModelError(f"{self._name} cannot run it: {error}") from error
        return np.asarray(logits, dtype=np.float32)[: len(x)]


def artifact_of(manifest, path=None):
    """(model, device): the first model of a bundle, or the one with `path`, and its device."""
    models = {model["path"]: model for model in manifest["models"]}
    name = path or next(iter(models))
    if name not in models:
        raise BundleError(f"no model {name} in the bundle; it holds {', '.join(models)}")
    facts = [fact for fact in manifest["latency"] if fact["model"] == name]
    if not facts:
        raise BundleError(f"{name}: the manifest names no device that runs it")
    return models[name], facts[0]["device"]


def open_predictor(folder, manifest, path=None):
    """Opens the model of the bundle's device, or the one with `path`."""
    model, device = artifact_of(manifest, path)
    return Predictor(inside(Path(folder), model["path"]), device)


def check(folder, manifest, path=None, data=None, with_latency=True):
    """Findings on the model of the bundle's device, or on one model."""
    folder = Path(folder)
    model, device = artifact_of(manifest, path)
    file = inside(folder, model["path"])
    held = precision_of(file)
    detail = f"{held or 'unknown'} in the file, {model['precision']} in the manifest"
    passed = None if held is None else held == model["precision"] == device["precision"]
    detail += f", {device['precision']} device"
    found = [finding(model, "precision", passed, detail)]
    if passed is False:
        return found  # it is the wrong file, so further checks are useless
    try:
        found += check_outputs(folder, manifest, model, Predictor(file, device), data)
    except ModelError as error:
        return [*found, finding(model, "run", False, str(error))]
    if with_latency:
        found += check_latencies(folder, manifest, {model["path"]: model}, device["runtime"])
    return found


def logits(arguments):
    """`--logits DEVICE MODEL X.npy Y.npy`: logits of all inputs; prints the precision."""
    device, model, given, out = arguments
    try:
        predict = Predictor(Path(model), json.loads(device))
        with open(given, "rb") as stream:
            x = read_npy(stream, Path(given).stat().st_size)
        if x.dtype != np.float32 or x.ndim != 4:
            raise ValueError(f"{given}: expected float32 [n, C, H, W], found {x.dtype} {x.shape}")
        with open(out, "wb") as stream:
            np.save(stream, predict(x), allow_pickle=False)
        print(json.dumps({"precision": precision_of(model)}))
    except (BundleError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def main():
    """Entry point."""
    if sys.argv[1:2] == ["--logits"]:
        parser = argparse.ArgumentParser()
        parser.add_argument("--logits", nargs=4)
        return logits(parser.parse_args().logits)
    return bundle_cli.main(__doc__, check, open_predictor, "model")


if __name__ == "__main__":
    sys.exit(main())
