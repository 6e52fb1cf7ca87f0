"""ONNX, compressed with gzip, for devices that unpack it once."""

from __future__ import annotations

import gzip
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hwnas.core.errors import UserError
from hwnas.exporters.base import BatchConfig, Format, Source
from hwnas.exporters.opened import onnxruntime_model
from hwnas.interfaces import Exporter, ModelFile, OpenModel

__all__ = ["Config", "build"]

FILE_NAME = "model.onnx.gz"


class Config(BatchConfig):
    """Settings of the graph."""

    name: Literal["onnx_gz"] = "onnx_gz"


def build(config: Config) -> Exporter:
    """An exporter to `model.onnx.gz`."""
    return _Compressed(config)


@dataclass(frozen=True)
class _Compressed(Format):
    config: Config

    def contents(self, source: Source) -> dict[str, bytes]:
        """The graph; without a time stamp, so that equal networks give equal bytes."""
        graph = source.graph(dynamic_batch=self.config.dynamic_batch)
        return {FILE_NAME: gzip.compress(graph.SerializeToString(), mtime=0)}

    def describe(self, files: Sequence[Path]) -> ModelFile:
        """The manifest entry of the file, in its own folder of the bundle."""
        return ModelFile(f"onnx_gz/{FILE_NAME}", "onnx_gz", "fp32", batch=self.config.batch)

    def open_model(self, path: Path, *, threads: int = 1) -> OpenModel:
        """Unpacks the file and opens it in ONNX Runtime.

        Raises:
            UserError: the file is damaged.
        """
        try:
            content = gzip.decompress(Path(path).read_bytes())
        except (OSError, EOFError) as error:
            raise UserError("not a gzip file", found=error, where=path) from error
        with tempfile.TemporaryDirectory() as folder:
            unpacked = Path(folder, "model.onnx")
            unpacked.write_bytes(content)
            return onnxruntime_model(unpacked, threads=threads)
