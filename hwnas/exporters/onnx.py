"""ONNX by the torch.export-based exporter: BN folded, static or dynamic batch, one file."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from hwnas import __version__
from hwnas.core.config import StrictModel
from hwnas.core.store import write_bytes
from hwnas.interfaces import Exporter

if TYPE_CHECKING:
    import torch

__all__ = ["Config", "build"]

FILE_NAME = "model.onnx"
INPUT_NAME, OUTPUT_NAME = "input", "logits"


class Config(StrictModel):
    """Settings of the exported graph."""

    name: Literal["onnx"] = "onnx"
    opset: Annotated[int, Field(ge=18, le=23, description="ONNX operator set of the target")] = 18
    dynamic_batch: bool = Field(True, description="any batch size; otherwise exactly 1")


def build(config: Config) -> Exporter:
    """An exporter to `model.onnx` with tensors `input` [B, C, H, W] and `logits` [B, classes]."""
    return _OnnxExporter(config)


@dataclass(frozen=True)
class _OnnxExporter:
    config: Config

    def export(
        self,
        model: torch.nn.Module,
        *,
        input_shape: Sequence[int],
        folder: Path,
        metadata: Mapping[str, str] | None = None,
    ) -> tuple[Path, ...]:
        """See `interfaces.Exporter`; `metadata` goes into the file's metadata_props."""
        import onnx
        import torch

        from hwnas.exporters.fold import folded

        batch = {0: torch.export.Dim("batch")}
        example = torch.zeros(2 if self.config.dynamic_batch else 1, *input_shape)
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                folded(model).cpu(),
                (example,),
                dynamo=True,
                input_names=[INPUT_NAME],
                output_names=[OUTPUT_NAME],
                dynamic_shapes=(batch,) if self.config.dynamic_batch else None,
                opset_version=self.config.opset,
                verbose=False,
            )
        assert program is not None  # only the older exporter returns None
        proto = program.model_proto
        _strip(proto)
        onnx.helper.set_model_props(proto, {"hwnas_version": __version__, **(metadata or {})})
        onnx.checker.check_model(proto, full_check=True)
        path = Path(folder) / FILE_NAME
        write_bytes(path, proto.SerializeToString())
        return (path,)


def _strip(proto: object) -> None:
    """Drop the exporter's debugging notes; they hold source lines and paths of this machine."""
    graph = proto.graph  # type: ignore[attr-defined]
    for item in (proto, graph, *graph.node, *graph.value_info, *graph.input, *graph.output):
        del item.metadata_props[:]
        if hasattr(item, "doc_string"):
            item.ClearField("doc_string")
    del graph.value_info[:]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the exporter prints, logs and warns about versions of itself off the terminal."""
    before = logging.root.manager.disable
    logging.disable(max(before, logging.WARNING))
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
