"""The README of a bundle: its network, what was measured of it, and the commands that run it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from hwnas.core.stats import accuracy_text
from hwnas.exporters.manifest import LatencyFact, Manifest

__all__ = ["readme"]

MOST_CLASSES = 20  # that are named
LINK = re.compile(r"\[([^\]]+)\]\(\.\./[^)]*\)")
"""Links of the kit's page that lead out of its folder, and would out of a bundle."""


def readme(manifest: Manifest, kit: str) -> bytes:
    """Markdown: facts of the manifest first, then `kit`, the page of the device kit."""
    spec = manifest.input
    channels, height, width = spec.shape
    n = len(spec.class_names)
    named = ", ".join(_plain(name) for name in spec.class_names[:MOST_CLASSES])
    more = f", and {n - MOST_CLASSES} more (see `manifest.json`)" if n > MOST_CLASSES else ""
    first = manifest.models[0].path
    lines = [
        f"# {_plain(manifest.name)}",
        "",
        f"An image classifier found by hwnas {manifest.hwnas_version}: {n} classes ({named}{more}),"
        f" input {channels} x {height} x {width}, arch `{manifest.arch.key}`.",
        "",
        *_table(manifest),
        *_limits(manifest),
        "",
        "## Run it",
        "",
        "    " + _install(manifest),
        f"    {_command(manifest)} samples/*            # names the class of images",
        f"    {_command(manifest)} --check .            # files, outputs, latency as promised here",
        f"    {_command(manifest)} --check . --data DIR # and the accuracy: a folder per class",
        "",
        f"The device runs `{first}`. Another program makes its input of the centre square of an"
        f" image: resized to {' and then to '.join(f'{px} px' for px in spec.resize_px)} (bilinear,"
        f" antialiased), then (pixel / 255 - mean) / std per channel, mean {_numbers(spec.mean)},"
        f" std {_numbers(spec.std)}. The output is logits, in the order of `input.class_names` in"
        " `manifest.json`.",
        "",
        *(f"- {key}: {_plain(value)}" for key, value in sorted(manifest.provenance.items())),
        "",
        LINK.sub(r"\1", kit),
    ]
    return "\n".join(lines).encode("utf-8", "backslashreplace")


def _table(manifest: Manifest) -> Iterator[str]:
    """A row per model: accuracy with its standard error, latency with device and interval."""
    accuracy = {fact.model: fact for fact in manifest.accuracy}
    latency = {fact.model: fact for fact in manifest.latency}
    yield "| file | format | precision | top-1 | latency |"
    yield "| --- | --- | --- | --- | --- |"
    for model in manifest.models:
        fact = accuracy.get(model.path)
        top1 = "not measured"
        if fact is not None:
            share = accuracy_text(fact.top1, fact.n_images)
            top1 = f"{share} of {fact.n_images:,} {fact.split} images"
        timed = _latency(latency.get(model.path))
        yield f"| `{model.path}` | {model.format} | {model.precision} | {top1} | {timed} |"


def _latency(fact: LatencyFact | None) -> str:
    if fact is None:
        return "not measured"
    found = []
    if fact.measured_ms is not None:
        found.append(f"{fact.measured_ms:.4g} ms measured")
    if fact.forecast_ms is not None:
        interval = "" if fact.interval_ms is None else f" ({_numbers(fact.interval_ms)})"
        found.append(f"{fact.forecast_ms:.4g} ms estimated{interval}")
    threads = f"{fact.device.threads} thread" + "s" * (fact.device.threads > 1)
    place = f"on {_plain(fact.device.name)} ({_plain(fact.host)}, {threads})"
    return f"{', '.join(found)} {place}" if found else "not measured"


def _limits(manifest: Manifest) -> Iterator[str]:
    for limit in manifest.constraints:
        verdict = {True: "met", False: "not met", None: "not judged"}[limit.met]
        yield ""
        yield f"Limit: {limit.metric} on {_plain(limit.device)} at most {limit.max:.4g}: {verdict}."


def _command(manifest: Manifest) -> str:
    """The script that runs the first model."""
    model = manifest.models[0]
    is_onnx = model.path.endswith((".onnx", ".ort"))
    devices = [fact.device for fact in manifest.latency if fact.model == model.path]
    on_processor = not devices or devices[0].provider == "CPUExecutionProvider"
    return f"python3 {'ort_run.py' if is_onnx and on_processor else 'device_run.py'}"


def _install(manifest: Manifest) -> str:
    if _command(manifest).endswith("ort_run.py"):
        return "python3 -m pip install numpy onnxruntime"
    return "python3 bench.py --runtimes                    # what to install for its runtime"


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)


def _plain(text: str) -> str:
    """Text from outside, which is neither Markdown nor HTML."""
    return re.sub(r"([\\`*_{}\[\]<>()#+|!~])", r"\\\1", " ".join(str(text).split()))
