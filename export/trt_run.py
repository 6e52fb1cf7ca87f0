#!/usr/bin/env python3
"""Check, time or use the TensorRT engines of a bundle (see trt_build.py) on this GPU.

    python trt_run.py --check .                     metadata, golden outputs, samples, latency
    python trt_run.py --check . --data PHOTOS       and accuracy: photos in a folder per class
    python trt_run.py photo.ppm ...                 class of a .npy or .ppm (others need Pillow)

Engines for another GPU, version or model file are refused. Needs numpy and `tensorrt` or
`tensorrt_rtx`. The exit status is as in ort_run.py.
"""

import json
import sys
from pathlib import Path

try:
    import numpy as np
except ImportError as error:
    sys.exit(f"error: {error}; fix: python -m pip install numpy")

import bench_tensorrt
import bundle_cli
from bench_json import strict_json
from bundle_checks import check_outputs, finding
from bundle_files import BundleError, inside, problems, sha256
from bundle_latency import latency_findings
from trt_build import SCHEMA_VERSION, open_gpu, open_runtime

HERE = Path(__file__).resolve().parent
TF32_TOLERANCE = 5e-3  # 10 bits of mantissa, over tens of layers
ROUNDS, RUNS, WARMUP = 15, 20, 50


class ForeignEngine(BundleError):
    """An engine for another GPU, version or runtime."""


class Predictor:
    """An engine; calling it with inputs [n, C, H, W], any n, returns logits [n, classes]."""

    def __init__(self, trt, cuda, path, facts):
        logger = trt.Logger(trt.Logger.ERROR)
        try:
            self.execution = bench_tensorrt.Execution(trt, logger, path, cuda)
        except RuntimeError as error:
            raise BundleError(f"{path.name}: {error}") from error
        self.least, _, self.most = facts["batches"]

    def __call__(self, x):
        """Logits of inputs; the last batch is filled if it is smaller than the engine supports."""
        parts = [x[start : start + self.most] for start in range(0, len(x), self.most)]
        return np.concatenate([self._run(part) for part in parts])

    def _run(self, x):
        n_more = max(0, self.least - len(x))
        return self.execution(np.concatenate([x, np.repeat(x[-1:], n_more, axis=0)]))[: len(x)]


# --- engines --------------------------------------------------------------------------------------


def engines_of(folder, manifest, chosen=None):
    """Engine files: those in the manifest, and those built here; or only the chosen one."""
    folder = Path(folder)
    if chosen is not None:
        return [inside(folder, chosen)]
    listed = [inside(folder, model["path"]) for model in manifest["models"]]
    built = sorted((folder / "engines").glob("*.engine"))
    found = [path for path in dict.fromkeys([*listed, *built]) if path.suffix == ".engine"]
    if not found:
        raise BundleError(f"{folder}: no engines; fix: python trt_build.py")
    return found


def read_facts(path):
    """Reads the metadata of an engine, after checking that the engine is unchanged."""
    facts_path = path.with_name(path.name + ".json")
    fix = "fix: build it again (trt_build.py)"
    try:
        facts = strict_json(facts_path.read_bytes())
        version = facts.get("schema_version") if isinstance(facts, dict) else None
        if type(version) is int and version > SCHEMA_VERSION:
            raise BundleError(f"{facts_path.name}: written by a newer trt_build.py; {fix}")
        schema = json.loads((HERE / "engine.schema.json").read_text(encoding="utf-8"))
        wrong = list(problems(facts, schema, schema, "facts"))
        if wrong:
            raise BundleError(f"{facts_path.name}: {'; '.join(wrong[:3])}; {fix}")
        if sha256(path) != facts["sha256"]:
            raise BundleError(f"{path.name}: altered (sha256 differs); {fix}")
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{facts_path.name}: cannot read: {error}; {fix}") from error
    return facts


def model_of(folder, manifest, path, facts):
    """The manifest entry for an engine; refuses an engine of another model file."""
    models = {model["path"]: model for model in manifest["models"]}
    source = models.get(facts["model"])
    if source is None or sha256(inside(folder, facts["model"])) != facts["model_sha256"]:
        raise BundleError(
            f"{path.name}: stale: built of a {facts['model']} that is not this bundle's; "
            "fix: build it again (trt_build.py)"
        )
    name = path.relative_to(folder).as_posix()
    if name in models:  # built by the host, so the manifest has an entry
        return models[name]
    tolerance = source["parity_tolerance"]
    if facts["with_tf32"]:
        tolerance = max(tolerance, TF32_TOLERANCE)
    return dict(source, path=name, parity_tolerance=tolerance)


def refuse_foreign(path, facts, trt, cuda):
    """Refuses an engine of another runtime, version or GPU."""
    built = {"version": facts["runtime_version"], "compute capability": facts["capability"]}
    here = {"version": trt.__version__, "compute capability": cuda.capability}
    if facts["gpu"] is not None:
        built["GPU"], here["GPU"] = facts["gpu"], cuda.name
    for what, value in built.items():
        if value != here[what]:
            raise ForeignEngine(
                f"{path.name}: stale: built for {what} {value}, here it is {here[what]}; "
                f"fix: python trt_build.py --runtime {facts['runtime']} --model {facts['model']}"
            )


def open_engine(folder, manifest, path):
    """(metadata, expected results of the engine, predictor, GPU) for an engine that fits."""
    facts = read_facts(path)
    model = model_of(folder, manifest, path, facts)
    trt = open_runtime(facts["runtime"])
    cuda = open_gpu()
    refuse_foreign(path, facts, trt, cuda)
    return facts, model, Predictor(trt, cuda, path, facts), cuda


def open_engines(folder, manifest, chosen=None):
    """Results of `open_engine` for every engine for this GPU, and refusals of the others by path.

    A bundle may have engines for several GPUs. It is an error if none of them is for this GPU.
    """
    opened, foreign = [], {}
    for path in engines_of(folder, manifest, chosen):
        try:
            opened.append(open_engine(folder, manifest, path))
        except ForeignEngine as error:
            foreign[path] = error
    if not opened:
        raise next(iter(foreign.values()))
    return opened, foreign


def open_predictor(folder, manifest, chosen=None):
    """The first engine for this GPU, or the one with path `chosen`."""
    return open_engines(Path(folder), manifest, chosen)[0][0][2]


# --- checks ---------------------------------------------------------------------------------------


def check(folder, manifest, chosen=None, data=None, with_latency=True):
    """Findings on every engine of a bundle, or on one engine."""
    folder, found = Path(folder), []
    opened, foreign = open_engines(folder, manifest, chosen)
    for facts, model, predict, cuda in opened:
        found += check_outputs(folder, manifest, model, predict, data)
        if with_latency:
            found += check_latencies(manifest, model, facts, predict, cuda)
    for path, error in foreign.items():
        engine = {"path": path.relative_to(folder).as_posix()}
        found.append(finding(engine, "all", None, f"not for this machine: {error}"))
    return found


def check_latencies(manifest, model, facts, predict, cuda):
    """Findings on the latencies of the model in this runtime; else the measured latency."""
    device = {"name": "this GPU", "batch": facts["batches"][1], "threads": 1}
    promises = [
        fact
        for fact in manifest["latency"]
        if fact["model"] in (facts["model"], model["path"])
        and fact["device"]["runtime"] == facts["runtime"]
        and facts["batches"][0] <= fact["device"]["batch"] <= facts["batches"][2]
    ]
    nothing = {"device": device, "host": cuda.name}
    nothing.update(dict.fromkeys(("forecast_ms", "interval_ms", "measured_ms")))
    found = []
    for fact in promises or [nothing]:
        timed = measure_ms(predict, cuda, fact["device"]["batch"])
        found += latency_findings(model, fact, manifest["constraints"], timed)
    return found


def measure_ms(predict, cuda, batch):
    """Median over rounds of the fastest run of each, and 95th percentile over all runs.

    Measured by CUDA events around the engine only.
    """
    predict.execution.bind(batch)
    for _ in range(WARMUP):
        cuda.timed(predict.execution.enqueue)
    rounds = [[cuda.timed(predict.execution.enqueue) for _ in range(RUNS)] for _ in range(ROUNDS)]
    median = float(np.median([min(times) for times in rounds]))
    return median / 1e6, float(np.quantile(rounds, 0.95)) / 1e6


def main():
    """Entry point."""
    return bundle_cli.main(__doc__, check, open_predictor, "engine")


if __name__ == "__main__":
    sys.exit(main())
