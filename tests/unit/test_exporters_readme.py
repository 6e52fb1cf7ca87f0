"""The page of a bundle says what its manifest says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from hwnas.exporters.bundle_readme import MOST_CLASSES, readme
from hwnas.exporters.manifest import AccuracyFact, ConstraintFact, LatencyFact
from hwnas.interfaces import DeviceSpec, ModelFile
from tests.bundles import colour_manifest

BOARD = DeviceSpec("board", threads=4)


def page(kit: str = "", **fields: Any) -> str:
    return readme(colour_manifest(**fields), kit).decode()


def latency(device: DeviceSpec = BOARD, **facts: Any) -> LatencyFact:
    return LatencyFact(device, "models/fp32.onnx", "A55", **facts)


def row(**fields: Any) -> str:
    (found,) = [line for line in page(**fields).splitlines() if line.startswith("| `models/fp32")]
    return found


def test_accuracy_has_its_standard_error() -> None:
    """sqrt(0.8 * 0.2 / 1600) is one percent."""
    fact = AccuracyFact("models/fp32.onnx", "colours", "test", 1600, 0.8)
    assert "| onnx | fp32 | 80.00% ± 1.00% of 1,600 test images |" in row(accuracy=(fact,))
    assert "| fp32 | not measured |" in row(accuracy=())


@pytest.mark.parametrize(
    ("facts", "text"),
    [
        ({}, "not measured"),
        ({"measured_ms": 1.25}, "1.25 ms measured on board (A55, 4 threads)"),
        ({"forecast_ms": 1.5}, "1.5 ms estimated on board (A55, 4 threads)"),
        (
            {"measured_ms": 1.25, "forecast_ms": 1.5, "interval_ms": (1.0, 2.0)},
            "1.25 ms measured, 1.5 ms estimated (90 % interval: 1 to 2) on board (A55, 4 threads)",
        ),
    ],
)
def test_latency_is_measured_estimated_or_neither(facts: dict[str, Any], text: str) -> None:
    assert row(latency=(latency(**facts),)).endswith(f"images | {text} |")


def test_one_thread_is_no_plural_and_without_a_fact_nothing_was_measured() -> None:
    assert "(A55, 1 thread)" in row(latency=(latency(replace(BOARD, threads=1), measured_ms=1),))
    assert row(latency=()).endswith("| not measured |")


@pytest.mark.parametrize(("met", "text"), [(True, "met"), (False, "not met"), (None, "not judged")])
def test_limits_say_whether_they_are_met(met: bool | None, text: str) -> None:
    found = page(constraints=(ConstraintFact("latency_ms", "bo*ard", 2.5, met),))
    assert f"Limit: latency_ms on bo\\*ard at most 2.5: {text}." in found.splitlines()


@pytest.mark.parametrize(
    ("data", "text"),
    [("sign_digits", "is Apache-2.0 (Sign Language Digits"), ("mine", "is not known to hwnas.")],
)
def test_the_licence_of_the_photos_is_said_where_it_is_known(data: str, text: str) -> None:
    (fact, *_) = colour_manifest().accuracy
    found = page(accuracy=(replace(fact, dataset=data),))
    escaped = data.replace("_", "\\_")
    assert f"- Trained on: {escaped}. The licence of the images {text}" in found


@pytest.mark.parametrize(
    ("weights", "line"),
    [
        ("started from n (h), licence Apache-2.0", "license: apache-2.0"),
        ("started from n (h), licence BSD-3-Clause", "license: bsd-3-clause"),
        ("started from n (h), licence research only", None),
        (None, None),
    ],
)
def test_the_metadata_name_a_licence_of_weights_that_the_hub_knows(
    weights: str | None, line: str | None
) -> None:
    provenance = {} if weights is None else {"weights": weights}
    found = [one for one in page(provenance=provenance).splitlines() if one.startswith("license")]
    assert found == ([line] if line else [])


@pytest.mark.parametrize("n", [MOST_CLASSES, MOST_CLASSES + 1])
def test_the_first_classes_are_named(n: int) -> None:
    spec = replace(colour_manifest().input, class_names=tuple(f"c{i}" for i in range(n)))
    found = page(input=spec, accuracy=(), samples=())
    names = ", ".join(f"c{i}" for i in range(MOST_CLASSES))
    more = ", and 1 more (see `manifest.json`)" if n > MOST_CLASSES else ""
    shape = " x ".join(map(str, spec.shape))
    assert f"{n} classes ({names}{more}), input {shape}, arch `" in found


@pytest.mark.parametrize(
    ("device", "suffix", "script"),
    [
        (None, "onnx", "ort_run.py"),
        (BOARD, "onnx", "ort_run.py"),
        (BOARD, "ort", "ort_run.py"),
        (replace(BOARD, provider="CUDAExecutionProvider"), "onnx", "device_run.py"),
        (replace(BOARD, runtime="litert", provider="CPU"), "tflite", "device_run.py"),
        (None, "tflite", "device_run.py"),
    ],
)
def test_the_script_that_runs_the_first_model(
    device: DeviceSpec | None, suffix: str, script: str
) -> None:
    known = colour_manifest()
    path = f"models/fp32.{suffix}"
    found = page(
        models=(replace(known.models[0], path=path),),
        accuracy=(),
        latency=() if device is None else (replace(latency(device, measured_ms=1), model=path),),
    )
    assert f"    python3 {script} samples/*  " in found
    assert f"    python3 {script} --check .  " in found
    installs = "    python3 -m pip install numpy onnxruntime" in found.splitlines()
    assert installs == (script == "ort_run.py")
    assert ("python3 bench.py --runtimes" in found) == (script == "device_run.py")


def test_text_from_outside_is_neither_markdown_nor_html() -> None:
    found = page(name="<b>a`b\n# x</b>", provenance={"b": "[x](y)", "a": "1 * 2"})
    assert found.split("---\n\n")[1].splitlines()[0] == "# \\<b\\>a\\`b \\# x\\</b\\>"
    assert found.index("- a: 1 \\* 2") < found.index("- b: \\[x\\]\\(y\\)")


def test_the_page_of_the_kit_follows_without_links_out_of_the_bundle() -> None:
    kit = "See [the docs](../docs/x.md) and [here](y.md)."
    assert page(kit).endswith("See the docs and [here](y.md).")


def test_preprocessing_is_spelled_out() -> None:
    spec = colour_manifest().input
    px = spec.shape[-1]
    found = page(input=replace(spec, resize_px=(64, px), mean=(0.1, 0.2, 0.3)))
    assert f"resize it to 64 px and then to {px} px (bilinear" in found
    assert "mean 0.1, 0.2, 0.3 and std" in found


def test_a_page_is_opened_by_its_address() -> None:
    assert "browser" not in page()
    models = tuple(
        ModelFile(f"web/web{name}.tflite", "web", precision)
        for name, precision in (("", "fp32"), (".int8", "int8"))
    )
    shown = page(models=(*colour_manifest().models, *models))
    assert "    # then open http://127.0.0.1:8000/web/index.html\n" in shown
    assert "    # then open http://127.0.0.1:8000/web/int8.html\n" in shown
