"""ncnn, for phones and small boards: converted by pnnx, weights in float32."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from hwnas.core.config import StrictModel
from hwnas.core.env import require
from hwnas.core.errors import UserError
from hwnas.exporters.base import Format, Source, unsupported
from hwnas.exporters.capture import capture, quiet
from hwnas.exporters.last_words import last_words
from hwnas.interfaces import Exporter, Images, ModelFile, OpenModel

__all__ = ["Config", "build"]

REQUIRES = ("ncnn", "pnnx")
EXTRA = "ncnn"
FILES = ("model.ncnn.param", "model.ncnn.bin")
SUPPORTED = "operators that pnnx converts and that ncnn has"

USAGE = """
import ncnn

net = ncnn.Net()
net.load_param("{file}")
net.load_model("{file}".replace(".param", ".bin"))
with net.create_extractor() as extractor:
    extractor.input("in0", ncnn.Mat(x[0]).clone())
    logits = np.array(extractor.extract("out0")[1])[None]
"""


class Config(StrictModel):
    """No settings."""

    name: Literal["ncnn"] = "ncnn"


def build(config: Config) -> Exporter:
    """An exporter to `model.ncnn.param` and `model.ncnn.bin` with the blobs `in0` and `out0`.

    ncnn has no batch axis, so it runs one image at a time.
    """
    return _Ncnn()


@dataclass(frozen=True)
class _Ncnn(Format):
    def contents(self, source: Source) -> dict[str, bytes]:
        """The files of graph and weights, without `source.metadata`, which ncnn cannot store.

        Raises:
            UserError: pnnx does not convert the network, or ncnn lacks an operator.
        """
        import torch

        from hwnas.exporters.fold import folded

        pnnx = require("pnnx", extra=EXTRA)
        network = folded(source.model, source.input_shape)
        example = torch.zeros(1, *source.input_shape)
        with torch.no_grad(), tempfile.TemporaryDirectory() as temporary:
            if not hasattr(source.model, "definition"):
                capture(network, example)  # refuses branches, of which a trace keeps one
            script = Path(temporary, "model.pt")
            with quiet():  # pnnx only reads TorchScript, which is deprecated
                traced = torch.jit.trace(network, example)  # type: ignore[no-untyped-call]
            traced.save(str(script))
            sizes = ",".join(str(n) for n in example.shape)
            done = subprocess.run(
                [pnnx.EXEC_PATH, script.name, f"inputshape=[{sizes}]", "fp16=0"],
                cwd=temporary,
                capture_output=True,
                text=True,
            )
            made = [Path(temporary, name) for name in FILES]
            if done.returncode != 0 or not all(path.is_file() for path in made):
                said = last_words(done.stderr or done.stdout)
                raise unsupported("ncnn", SUPPORTED, said, where=FILES[0])
            files = {path.name: path.read_bytes() for path in made}
        if lacking := _unknown_layers(files[FILES[0]].decode()):
            raise unsupported("ncnn", SUPPORTED, ", ".join(lacking), where=FILES[0])
        return files

    def describe(self, files: Sequence[Path]) -> ModelFile:
        """The manifest entry of graph and weights, which have their own folder."""
        return ModelFile(f"ncnn/{FILES[0]}", "ncnn", "fp32", batch=1)

    def open_model(self, path: Path, *, threads: int = 1) -> OpenModel:
        """Opens the files in ncnn on the CPU, in float32.

        Raises:
            UserError: the files do not load.
        """
        ncnn = require("ncnn", extra=EXTRA)
        net = ncnn.Net()
        net.opt.use_vulkan_compute = False
        net.opt.num_threads = threads
        for half in ("packed", "storage", "arithmetic"):
            setattr(net.opt, f"use_fp16_{half}", False)
        path = Path(path)
        weights = path.with_suffix(".bin")
        if net.load_param(str(path)) != 0 or net.load_model(str(weights)) != 0:
            raise UserError(
                "ncnn rejects the files", where=f"{path}, {weights}", fix="export them again"
            )

        def run(x: Images) -> Images:
            rows = []
            for image in x:
                with net.create_extractor() as extractor:
                    extractor.input("in0", ncnn.Mat(image).clone())
                    _, out = extractor.extract("out0")
                    row = np.array(out, dtype=np.float32)
                    rows.append(row.reshape(-1) if max(row.shape) == row.size else row)
            return np.stack(rows)

        return OpenModel(run, f"ncnn {ncnn.__version__}", 1)


def _unknown_layers(param: str) -> list[str]:
    """Kinds of layers in a .param file that ncnn does not have."""
    ncnn = require("ncnn", extra=EXTRA)
    kinds = {line.split()[0] for line in param.splitlines()[2:] if line.strip()}
    return sorted(kind for kind in kinds if ncnn.create_layer(kind) is None)
