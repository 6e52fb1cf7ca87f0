"""The spaces that each builder and exporter supports, with the known gaps.

Rows are spaces. Columns are builders (timed models) and exporters (deployed models). A new row or
column must work for all combinations. Exceptions are listed in `GAPS`, or in `Skeleton.lacks` if no
network of the space can be trained.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray

from hwnas.builders import tflite
from hwnas.builders.onnx import network
from hwnas.builders.precision import to_precision
from hwnas.core.rng import rng
from hwnas.exporters import REGISTRY as EXPORTERS
from hwnas.exporters import onnx as float_onnx
from hwnas.exporters.interpreter import Interpreted
from hwnas.exporters.opened import CannotRunHere
from hwnas.nets.bn import recalibrate
from hwnas.nets.subnet import build_subnet
from hwnas.spaces.graphs import smallest_connected
from hwnas.spaces.lowering import lower, resolution
from hwnas.spaces.network import Network
from hwnas.spaces.space import SearchSpace
from hwnas.testing.exporters import check_parity
from hwnas.testing.suite import exemptions, quick

__all__ = ["BUILDERS", "GAPS", "check_builder", "check_exporter", "gap"]

TAKE_TOKENS = ("onnx", "ort", "timm")
"""Exporters that support recurrent networks."""

GAPS: Mapping[tuple[str, str], str] = {
    **{
        (name, "features"): "networks of cells are not chains of blocks"
        for name in ("nasbench201", "nats_size", "nasbench101", "darts")
    },
    **{
        ("darts_ptb", column): "recurrent networks have the formats of TAKE_TOKENS only"
        for column in (
            *("build onnx:int8", "build tflite", "build tflite:fp16", "build tflite:int8"),
            *(name for name in EXPORTERS.names if name not in TAKE_TOKENS),
        )
    },
    **{
        ("nasbench_nlp", f"build {builder}"): "its networks are only read from records"
        for builder in (
            *("onnx", "onnx:fp16", "onnx:int8"),
            *("tflite", "tflite:fp16", "tflite:int8"),
        )
    },
}
"""Maps (space, column) to the reason why the builder or exporter does not support the space."""

N_IMAGES = 16
N_STEPS = 25  # tokens per segment


def _onnx(precision: Literal["fp32", "fp16", "int8"]) -> Callable[[Network], tuple[int, ...]]:
    def build(net: Network) -> tuple[int, ...]:
        import onnxruntime

        model = to_precision(network(net), precision)
        onnx.checker.check_model(model, full_check=True)
        session = onnxruntime.InferenceSession(model.SerializeToString())
        feed = {given.name: _random(given.type, given.shape) for given in session.get_inputs()}
        logits = session.run(None, feed)[0]
        # random weights overflow half precision in the widest networks; the time is the same
        assert precision == "fp16" or np.isfinite(logits).all()
        return tuple(logits.shape)

    return build


def _random(kind: str, shape: Sequence[int]) -> NDArray[Any]:
    """An image in the type of an input; the first token of the vocabulary."""
    if kind == "tensor(int64)":
        return np.zeros(shape, dtype=np.int64)
    half = kind == "tensor(float16)"
    return rng(0, "image").standard_normal(shape).astype(np.float16 if half else np.float32)


def _tflite(precision: Literal["fp32", "fp16", "int8"]) -> Callable[[Network], tuple[int, ...]]:
    def build(net: Network) -> tuple[int, ...]:
        if missing := EXPORTERS.describe("litert").missing:
            pytest.skip(f"{', '.join(missing)} is not installed")
        model = Interpreted(tflite.network(net, precision=precision), where=precision)
        assert model.fell_out() == [], "XNNPACK does not run these operators"
        first = net.live().ops[0]
        shape = 1, first.in_channels, first.in_hw, first.in_hw
        (logits,) = model(rng(0, "image").standard_normal(shape).astype(np.float32))
        assert np.isfinite(logits).all()
        return tuple(logits.shape)

    return build


BUILDERS: Mapping[str, Callable[[Network], tuple[int, ...]]] = {
    "build onnx": _onnx("fp32"),
    "build onnx:fp16": _onnx("fp16"),
    "build onnx:int8": _onnx("int8"),
    "build tflite": _tflite("fp32"),
    "build tflite:fp16": _tflite("fp16"),
    "build tflite:int8": _tflite("int8"),
}
"""Maps a column to a function that builds and runs a network and returns its logits' shape."""


def gap(space: SearchSpace, column: str) -> str:
    """Why the builder or exporter does not support the space; empty if it does."""
    untrained = "" if column in BUILDERS else space.macro.lacks.get("static net", "")
    return untrained or GAPS.get((space.name, column), "")


def check_builder(space: SearchSpace, column: str) -> None:
    """Builds and runs the largest and the smallest arch."""
    for arch in (space.largest(), space.smallest()):
        assert BUILDERS[column](lower(space, arch)) == (1, space.macro.num_classes)


def check_exporter(space: SearchSpace, column: str, folder: Path) -> None:
    """Exports the smallest arch, and compares it with torch if the format runs on this host.

    For low precision, only the shape of the logits is checked, and that they are finite.
    `ExporterSuite` compares values on a shallow network, because a deep untrained network amplifies
    rounding errors.

    Raises:
        CannotRunHere: the format does not run on this host.
    """
    arch = smallest_connected(space)
    if space.macro.reads_tokens:
        tokens = rng(0, "tokens").integers(space.macro.num_classes, size=(N_IMAGES, 2, N_STEPS))
        images: NDArray[Any] = tokens
    else:
        shape = N_IMAGES, space.macro.in_channels, *(resolution(space, arch),) * 2
        images = rng(0, "images").standard_normal(shape).astype(np.float32)
    shape = images.shape[1:]
    model = recalibrate(build_subnet(space, arch), [torch.from_numpy(images)])
    if column != float_onnx.Config().name:
        exporter = float_onnx.build(float_onnx.Config())
        exporter.export(model, input_shape=shape, folder=folder)
    variant = EXPORTERS.load(column)
    exporter = variant.build(quick(variant))
    files = exporter.export(model, input_shape=shape, folder=folder, images=images)
    try:
        if exporter.describe(files).precision == "fp32":
            check_parity(exporter, files, model, images)
        else:
            logits = exporter.open_model(files[0]).logits(images)
            assert logits.shape == (N_IMAGES, space.macro.num_classes)
            assert np.isfinite(logits).all()
    except CannotRunHere:
        assert exemptions(variant).get("runs_here"), "not exempt from `runs_here`, but cannot run"
        raise
