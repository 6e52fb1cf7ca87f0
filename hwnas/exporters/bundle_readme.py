"""The README of a bundle: its network, the measured accuracy and latency, and how to run it.

Its head is the metadata of a model card on huggingface.co, so a bundle can be uploaded as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import yaml

from hwnas.core.stats import accuracy_text
from hwnas.core.text import visible
from hwnas.exporters.bundle_usage import pages, usage
from hwnas.exporters.manifest import LatencyFact, Manifest

__all__ = ["readme"]

MOST_CLASSES = 20  # classes that the README names
LICENCES = {"sign_digits": "Apache-2.0 (Sign Language Digits Dataset, arXiv:2011.08927)"}
"""Licences of the photos that ship with hwnas."""
LICENCE_OF_WEIGHTS = re.compile(r", licence (MIT|Apache-2\.0|BSD-[23]-Clause)$")
"""The licence at the end of `provenance.weights`, if huggingface.co has its name, in lower case."""
LINK = re.compile(r"\[([^\]]+)\]\(\.\./[^)]*\)")
"""Links in the page of the kit that point out of its folder; in a bundle they would point nowhere.
"""


def readme(manifest: Manifest, kit: str) -> bytes:
    """Markdown: metadata, facts of the manifest, usage, then `kit`, the page of the device kit.

    The same manifest and page always give the same bytes.
    """
    spec = manifest.input
    channels, height, width = spec.shape
    n = len(spec.class_names)
    named = ", ".join(_plain(name) for name in spec.class_names[:MOST_CLASSES])
    more = f", and {n - MOST_CLASSES} more (see `manifest.json`)" if n > MOST_CLASSES else ""
    lines = [
        *_metadata(manifest),
        f"# {_plain(manifest.name)}",
        "",
        f"An image classifier found by hwnas {manifest.hwnas_version}: {n} classes ({named}{more}),"
        f" input {channels} x {height} x {width}, arch `{manifest.arch.key}`.",
        "",
        *_table(manifest),
        *_limits(manifest),
        "",
        *_protocol(manifest),
        "",
        *usage(manifest),
        *pages(manifest),
        *_commands(manifest),
        "",
        *_origin(manifest),
        "",
        LINK.sub(r"\1", kit),
    ]
    return "\n".join(lines).encode("utf-8", "backslashreplace")


def _metadata(manifest: Manifest) -> Iterator[str]:
    """YAML between `---`, by the specification of model cards on huggingface.co."""
    precisions = {model.path: model.precision for model in manifest.models}
    results = [
        {
            "task": {"type": "image-classification"},
            "dataset": {"name": fact.dataset, "type": fact.dataset, "split": fact.split},
            "metrics": [
                {
                    "type": "accuracy",
                    "value": round(fact.top1, 6),
                    "name": f"Top-1 of {fact.model} ({precisions[fact.model]})",
                }
            ],
        }
        for fact in manifest.accuracy
    ]
    formats = sorted({model.format for model in manifest.models})
    licence = LICENCE_OF_WEIGHTS.search(manifest.provenance.get("weights", ""))
    card = {
        **({"license": licence[1].lower()} if licence else {}),
        "library_name": "hwnas",
        "pipeline_tag": "image-classification",
        "tags": ["hwnas", "neural-architecture-search", *formats],
        **({"model-index": [{"name": manifest.name, "results": results}]} if results else {}),
    }
    yield "---"
    yield from yaml.safe_dump(card, sort_keys=False, allow_unicode=True).splitlines()
    yield "---"
    yield ""


def _protocol(manifest: Manifest) -> Iterator[str]:
    """How the numbers were obtained: devices, timing, table, images."""
    yield "## How these numbers were measured"
    yield ""
    devices = {fact.device.name: (fact.device, fact.host) for fact in manifest.latency[::-1]}
    for name, (device, host) in sorted(devices.items()):
        yield (
            f"- Device {_plain(name)}: {_plain(host)}; runtime {device.runtime}, provider"
            f" {_plain(device.provider)}, batch size {device.batch}, threads {device.threads}."
        )
    if manifest.latency:
        yield (
            "- Latency is the median of hot runs, timed by `bench.py` of this folder in turn with"
            " other networks. An estimate comes from the latency table of the device; the numbers"
            " in brackets are its 90 % interval."
        )
    if (table := manifest.provenance.get("table")) is not None:
        yield f"- Latency table: sha256 `{_plain(table)}`."
    if manifest.accuracy:
        yield (
            "- Top-1 was measured with the file in its runtime, on images that neither training nor"
            " search used; ± is one standard error for that number of images."
        )
    if not (manifest.latency or manifest.accuracy):
        yield "- Nothing was measured."
    software = ", ".join(f"{_plain(k)} {_plain(v)}" for k, v in sorted(manifest.runtimes.items()))
    yield f"- Software: {software}."


def _commands(manifest: Manifest) -> Iterator[str]:
    """Commands of the kit, and the preprocessing for other programs."""
    spec, first = manifest.input, manifest.models[0].path
    yield "## Run it without hwnas"
    yield ""
    yield "    " + _install(manifest)
    yield f"    {_command(manifest)} samples/*            # names the class of images"
    yield f"    {_command(manifest)} --check .            # files, outputs, latency"
    yield f"    {_command(manifest)} --check . --data DIR # and the accuracy: a folder per class"
    yield ""
    yield (
        f"The device runs `{first}`. To prepare an image in another program, crop its centre square"
        f" and resize it to {' and then to '.join(f'{px} px' for px in spec.resize_px)} (bilinear,"
        " antialiased), then compute (pixel / 255 - mean) / std per channel, with mean"
        f" {_numbers(spec.mean)} and std {_numbers(spec.std)}. The output is logits, in the order"
        " of `input.class_names` in `manifest.json`."
    )


def _origin(manifest: Manifest) -> Iterator[str]:
    """Data, starting weights and their licences, and the provenance of the network."""
    facts = dict(manifest.provenance)
    weights = facts.pop("weights", "started from random values, so no other licence applies")
    yield "## Data, weights and licences"
    yield ""
    for name in sorted({fact.dataset for fact in manifest.accuracy}):
        licence = f"is {LICENCES[name]}" if name in LICENCES else "is not known to hwnas"
        yield f"- Trained on: {_plain(name)}. The licence of the images {licence}."
    yield f"- The weights {_plain(weights)}."
    yield "- The scripts of this folder are part of hwnas, licence Apache-2.0."
    yield "- Not measured: other devices and runtimes, and images unlike the test images."
    yield from (f"- {key}: {_plain(value)}" for key, value in sorted(facts.items()))


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
        interval = ""
        if fact.interval_ms is not None:
            interval = " (90 % interval: {:.4g} to {:.4g})".format(*fact.interval_ms)
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
    """The command, without arguments, that runs the first model of the bundle."""
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
    """Escapes Markdown and HTML in a text from outside."""
    text = visible(" ".join(str(text).split()))
    return re.sub(r"([\\`*_{}\[\]<>()#+|!~])", r"\\\1", text)
