#!/usr/bin/env python3
"""Build a TensorRT engine of a bundle's ONNX model, on the GPU that will run it.

    python trt_build.py                                      the fp32 model, batch 1 to 8
    python trt_build.py --precision fp16 --batch 1,4,16      another model, other batches
    python trt_build.py --capability 8.9                     without a GPU (TensorRT for RTX)

The precision is that of the model's weights and of its Q/DQ nodes, so the engine computes the same
as the model. Writes engines/NAME.engine and NAME.engine.json. The latter records the source of the
engine, and `trt_run.py` uses it to refuse a stale engine. Needs numpy and `tensorrt` or
`tensorrt_rtx`. Exit status: 0: built. 1: an error that you can fix.
"""

import argparse
import hashlib
import importlib
import json
import os
import sys
import time
from pathlib import Path

try:
    import bench_cuda
    import bench_tensorrt
    from bundle_files import BundleError, inside, read_bundle, sha256
except ImportError as error:  # they need numpy
    sys.exit(f"error: {error}; fix: python -m pip install numpy")

SCHEMA_VERSION = 1
INSTALL = {"tensorrt": "tensorrt", "tensorrt_rtx": "tensorrt-rtx-cu13"}
CACHE = "timing.{runtime}.cache"  # from builds on this GPU; builds for other GPUs time nothing


def open_runtime(name=None):
    """The module `tensorrt` or `tensorrt_rtx`; without a name, the installed one."""
    failed = []
    for candidate in [name] if name else INSTALL:
        try:
            return importlib.import_module(candidate)
        except ImportError as error:
            failed.append(f"{candidate}: {error}; fix: python -m pip install {INSTALL[candidate]}")
    raise BundleError("; or ".join(failed))


def open_gpu(index=0):
    """The GPU, by the CUDA runtime."""
    try:
        return bench_cuda.Cuda(index)
    except RuntimeError as error:
        raise BundleError(str(error)) from error


def target_of(trt, capability):
    """Target (capability, member of trt.ComputeCapability or None, name of the GPU or None)."""
    listed = getattr(trt, "ComputeCapability", None)
    known = {} if listed is None else dict(listed.__members__)
    if capability is None:
        try:
            gpu = open_gpu()
        except BundleError as error:
            names = ", ".join(as_dotted(name) for name in known if name.startswith("SM"))
            fix = f"; to build for a GPU elsewhere: --capability, one of {names}" if names else ""
            raise BundleError(f"{error}{fix}") from error
        return gpu.capability, None, gpu.name
    member = "SM" + capability.replace(".", "")
    if member not in known:
        can = ", ".join(as_dotted(name) for name in known if name.startswith("SM"))
        raise BundleError(
            f"{trt.__name__} {trt.__version__} cannot build for another GPU of capability "
            f"{capability}; supported: {can or 'none, build on the GPU itself'}"
        )
    return capability, known[member], None


def as_dotted(member):
    """SM89 -> 8.9, SM120 -> 12.0."""
    return f"{member[2:-1]}.{member[-1]}"


def choose(folder, path, precision):
    """(model of the manifest, its file): the ONNX model with this path or precision."""
    manifest = read_bundle(folder)
    models = [model for model in manifest["models"] if model["path"].endswith(".onnx")]
    fitting = [model for model in models if model["path"] == path or not path]
    fitting = [model for model in fitting if model["precision"] == precision or path]
    if not fitting:
        held = ", ".join(f"{model['path']} ({model['precision']})" for model in models)
        raise BundleError(
            f"the bundle holds no ONNX model {path or 'in ' + precision}; it holds {held}; "
            "fix: export it with that format, or name another with --model or --precision"
        )
    return fitting[0], inside(Path(folder), fitting[0]["path"])


def build(trt, path, out, model, batches, capability=None, with_tf32=False):
    """Writes the engine `out` of the ONNX file `path`, and its metadata; returns the metadata.

    model: the manifest entry of the file (`path`, `precision`, `batch`).
    """
    capability, target, gpu = target_of(trt, capability)
    batches = [model["batch"]] * 3 if model["batch"] else batches
    logger = trt.Logger(trt.Logger.WARNING)
    out.parent.mkdir(parents=True, exist_ok=True)
    cache = out.with_name(CACHE.format(runtime=trt.__name__)) if target is None else None
    started = time.perf_counter()
    try:
        parsed = bench_tensorrt.parse(trt, logger, path)
        network = parsed[2]
        inputs = [network.get_input(i) for i in range(network.num_inputs)]
        outputs = [network.get_output(i) for i in range(network.num_outputs)]
        tensors = [[describe(tensor) for tensor in side] for side in (inputs, outputs)]
        engine = bench_tensorrt.build(
            trt,
            parsed,
            batches,
            target=target,
            with_tf32=with_tf32,
            cache=cache,
        )
    except (ValueError, RuntimeError) as error:
        is_refused = model["precision"] == "int8" and isinstance(error, ValueError)
        fix = "; fix: export int8 with symmetric: true" if is_refused else ""
        text = f"{model['path']}: {trt.__name__} {trt.__version__}: {error}{fix}"
        raise BundleError(text) from error
    facts = {
        "schema_version": SCHEMA_VERSION,
        "runtime": trt.__name__,
        "runtime_version": trt.__version__,
        "capability": capability,
        "gpu": gpu,
        "model": model["path"],
        "model_sha256": sha256(path),
        "precision": model["precision"],
        "with_tf32": with_tf32,
        "batches": batches,
        "inputs": tensors[0],
        "outputs": tensors[1],
        "sha256": hashlib.sha256(engine).hexdigest(),
        "size_bytes": len(engine),
        "build_seconds": round(time.perf_counter() - started, 2),
    }
    facts_path = out.with_name(out.name + ".json")
    if facts_path.exists():  # never metadata of another engine
        facts_path.unlink()
    write(out, engine)
    write(facts_path, json.dumps(facts, indent=1).encode() + b"\n")
    return facts


def describe(tensor):
    """Name, shape and type of an input or output."""
    dtype = str(tensor.dtype).rsplit(".", 1)[-1]
    return {"name": tensor.name, "shape": [int(n) for n in tensor.shape], "dtype": dtype}


def write(path, data):
    """Writes a file atomically."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(data)
    os.replace(temporary, path)


def parse_batches(text):
    """Parses [least, usual, most] from `8` or `1,4,16`."""
    try:
        sizes = [int(part) for part in text.split(",")]
    except ValueError:
        sizes = []
    sizes = sizes * 3 if len(sizes) == 1 else sizes
    if len(sizes) != 3 or not 1 <= sizes[0] <= sizes[1] <= sizes[2]:
        raise BundleError(f"--batch: expected one size, or least,usual,most; found {text!r}")
    return sizes


def main(arguments=None):
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    here = Path(__file__).resolve().parent
    parser.add_argument("--bundle", type=Path, default=here)
    parser.add_argument("--precision", default="fp32", choices=["fp32", "fp16", "int8"])
    parser.add_argument(
        "--model", help="use this ONNX model of the bundle, given by its path in the bundle"
    )
    parser.add_argument("--batch", default="1,1,8", help="one batch size, or least,usual,most")
    parser.add_argument("--runtime", choices=sorted(INSTALL), help="default: the installed one")
    parser.add_argument("--capability", help="compute capability of another GPU, such as 8.9")
    parser.add_argument("--tf32", action="store_true", help="allow TF32 (fp32 products in 19 bits)")
    parser.add_argument("--out", type=Path, help="default: engines/NAME.engine in the bundle")
    options = parser.parse_args(arguments)
    try:
        batches = parse_batches(options.batch)
        model, path = choose(options.bundle, options.model, options.precision)
        trt = open_runtime(options.runtime)
        folder = options.bundle / "engines"
        out = options.out or folder / f"{Path(model['path']).stem}.{trt.__name__}.engine"
        facts = build(trt, path, out, model, batches, options.capability, options.tf32)
    except (BundleError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    gpu = facts["gpu"] or f"any GPU of capability {facts['capability']}"
    print(
        f"{out}: {facts['precision']}, batch {facts['batches'][0]} to {facts['batches'][2]}, "
        f"{facts['size_bytes'] / 1e6:.1f} MB, for {gpu}, {facts['runtime']} "
        f"{facts['runtime_version']}, built in {facts['build_seconds']:.1f} s"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
