#!/usr/bin/env python3
"""Check a bundle on this device, or classify images with it. Needs only numpy and onnxruntime.

    python ort_run.py --check .                     checksums, golden outputs, samples, latency
    python ort_run.py --check . --data PHOTOS       and accuracy: photos in a folder per class
    python ort_run.py photo.ppm ...                 class of a .npy or .ppm (others need Pillow)

If the file for the device needs another runtime, check it with device_run.py.

Exit status: 0: all checks passed. 1: an error that you can fix. 3: a check failed. 4: no check
failed, but one could not be judged, because this machine is too far from the speed at which the
latency was measured, or because the device runs the model in another runtime.
"""

import os
import re
import sys
from pathlib import Path

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read when ONNX Runtime is imported
try:
    import numpy as np
    import onnxruntime
except ImportError as error:
    sys.exit(f"error: {error}; fix: python -m pip install numpy onnxruntime")

import bundle_cli
from bundle_checks import check_outputs, finding
from bundle_files import BundleError
from bundle_latency import check_latencies

getattr(onnxruntime, "disable_telemetry_events", int)()  # for builds before 1.32
SUFFIXES = (".onnx", ".ort")  # files of ONNX Runtime
KINDS = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


class CannotRun(BundleError):
    """ONNX Runtime rejects a model, or fails in it. check: `load` or `run`."""

    check = "load"


class Predictor:
    """A model file in ONNX Runtime; maps inputs [n, C, H, W] to logits [n, classes]."""

    def __init__(self, folder, model, provider="CPUExecutionProvider", threads=1):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 4  # errors are raised; the log has names, unescaped
        path = str(Path(folder) / model["path"])
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=[provider])
            (tensor,) = self._session.get_inputs()
            self._name, self._kind = tensor.name, KINDS[tensor.type]
        except Exception as error:  # ONNX Runtime has no public base class of its errors
            raise CannotRun(
                f"{model['path']}: onnxruntime {onnxruntime.__version__} cannot load it: {error}"
                + needed_runtime(model)
            ) from error
        self.batch, self._path = model["batch"], model["path"]

    def __call__(self, x):
        """Logits of x: [n, C, H, W], any n; for a fixed batch size, the last batch is filled."""
        step = self.batch or len(x)
        parts = [x[start : start + step] for start in range(0, len(x), step)]
        return np.concatenate([self._run(part, step) for part in parts])

    def _run(self, x, size):
        filled = np.concatenate([x, np.repeat(x[-1:], size - len(x), axis=0)])
        try:
            logits = self._session.run(None, {self._name: filled.astype(self._kind)})[0]
        except Exception as error:
            failed = CannotRun(f"{self._path}: onnxruntime cannot run it: {error}")
            failed.check = "run"
            raise failed from error
        return np.asarray(logits, dtype=np.float32)[: len(x)]


def needed_runtime(model):
    """What to install if ONNX Runtime is older than the model needs; else None."""
    least = model["least_runtime"]
    if least is None or version(onnxruntime.__version__) >= version(least):
        return ""
    return f"; fix: it needs onnxruntime {least}: python -m pip install 'onnxruntime>={least}'"


def version(text):
    """The leading numbers of a version, for comparisons."""
    return [int(part) for part in re.match(r"[0-9]+(\.[0-9]+)*", text).group().split(".")]


def choose(manifest, path=None):
    """Models of the bundle that ONNX Runtime runs; with `path`, only that one."""
    models = [m for m in manifest["models"] if m["path"].endswith(SUFFIXES)]
    if path is not None:
        models = [m for m in models if m["path"] == path]
    if models:
        return models
    for model in manifest["models"]:
        if path in (None, model["path"]):
            raise BundleError(
                f"{model['path']}: onnxruntime does not run it; {runner(manifest, model)}"
            )
    known = ", ".join(m["path"] for m in manifest["models"])
    raise BundleError(f"no model {path} in the bundle; it holds {known}")


def runner(manifest, model):
    """The script that checks a model which a device runs in another runtime."""
    path = model["path"]
    if all(fact["model"] != path for fact in manifest["latency"]):
        return "no script of the bundle does, `hwnas verify` checks it"
    option = "" if model is manifest["models"][0] else f" --model {path}"
    return f"fix: python3 device_run.py --check .{option}"


def open_predictor(folder, manifest, path=None):
    """The first model that ONNX Runtime runs, or the one with `path`."""
    return Predictor(folder, choose(manifest, path)[0])


def check(folder, manifest, path=None, data=None, with_latency=True):
    """Findings on every model of a bundle, or on one model."""
    models = {model["path"]: model for model in choose(manifest, path)}
    found, loaded = [], {}
    for name, model in models.items():
        try:
            found += check_outputs(folder, manifest, model, Predictor(folder, model), data)
            loaded[name] = model
        except CannotRun as error:
            found.append(finding(model, error.check, False, str(error)))
    if with_latency:
        found += check_latencies(Path(folder), manifest, loaded, "onnxruntime")
        found += other_runtimes(manifest, loaded)
    promised = {fact["model"] for fact in manifest["latency"]}
    for model in manifest["models"] if path is None else ():
        if model["path"] not in models:
            detail = f"{model['format']} is not checked by onnxruntime; {runner(manifest, model)}"
            found.append(finding(model, "all", None, detail, judged=model["path"] not in promised))
    return found


def other_runtimes(manifest, models):
    """Findings on latencies of `models` on devices with another runtime."""
    found = {}
    for fact in manifest["latency"]:
        model, runtime = models.get(fact["model"]), fact["device"]["runtime"]
        if model is not None and runtime != "onnxruntime":
            detail = f"{fact['device']['name']} runs it in {runtime}; {runner(manifest, model)}"
            found[fact["model"], detail] = finding(model, "latency", None, detail, judged=False)
    return list(found.values())


def main():
    """Entry point."""
    return bundle_cli.main(__doc__, check, open_predictor, "model")


if __name__ == "__main__":
    sys.exit(main())
