"""torch `.pt2`: the exported program, for torch itself, ExecuTorch, AOTInductor."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hwnas import __version__
from hwnas.core.errors import UserError
from hwnas.exporters.base import BatchConfig, Format, Source
from hwnas.interfaces import Exporter, Images, ModelFile, OpenModel

__all__ = ["Config", "build"]

FILE_NAME = "model.pt2"


class Config(BatchConfig):
    """Settings of the exported program."""

    name: Literal["pt2"] = "pt2"


def build(config: Config) -> Exporter:
    """An exporter to `model.pt2`, BN folded: `torch.export.load(path).module()` runs it."""
    return _Pt2(config)


@dataclass(frozen=True)
class _Pt2(Format):
    config: Config

    def contents(self, source: Source) -> dict[str, bytes]:
        """The program; `metadata` is the archive's extra file `hwnas.json`."""
        import torch

        from hwnas.exporters.fold import folded

        is_dynamic = self.config.dynamic_batch
        example = torch.zeros(2 if is_dynamic else 1, *source.input_shape)
        dynamic = ({0: torch.export.Dim("batch")},) if is_dynamic else None
        net = folded(source.model).cpu()
        for parameter in net.parameters():
            parameter.requires_grad_(False)
        with torch.no_grad():
            program = torch.export.export(net, (example,), dynamic_shapes=dynamic)
        stream = io.BytesIO()
        facts = json.dumps({"hwnas_version": __version__, **source.metadata})
        torch.export.save(program, stream, extra_files={"hwnas.json": facts})
        return {FILE_NAME: stream.getvalue()}

    def describe(self, files: Sequence[Path]) -> ModelFile:
        """One file."""
        return ModelFile(FILE_NAME, "pt2", "fp32", batch=self.config.batch)

    def open_model(self, path: Path, *, threads: int = 1) -> OpenModel:
        """The program in torch, with `threads` of the process's own.

        Raises:
            UserError: the file is no exported program, or would have to be unpickled.
        """
        import torch

        _refuse_pickles(path)
        try:
            program = torch.export.load(path)
        except Exception as error:  # torch raises whatever its parts do
            raise UserError("torch rejects the file", found=error, where=path) from error
        module = program.module()
        (shape,) = [
            node.meta["val"].shape
            for node in program.graph.nodes
            if node.op == "placeholder" and node.name in program.graph_signature.user_inputs
        ]

        def run(x: Images) -> Images:
            with torch.no_grad():
                found: Images = module(torch.from_numpy(x)).numpy()
            return found

        batch = shape[0] if isinstance(shape[0], int) else None
        return OpenModel(run, f"torch {torch.__version__}", batch)


def _refuse_pickles(path: Path) -> None:
    """torch.export.load unpickles what an archive says is pickled, and code with it; ours is not.

    Raises:
        UserError: not an archive, or one with pickled or compiled parts.
    """
    import torch

    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                content = archive.read(name) if name.endswith((".json", ".pt")) else b""
                if name.endswith("_config.json") and b'"use_pickle": true' in content:
                    raise ValueError(f"{name} names pickled parts")
                if "custom_obj" in name or "/aotinductor/" in name:
                    raise ValueError(f"{name} holds code")
                if name.endswith(".pt"):
                    torch.load(io.BytesIO(content), weights_only=True)
    except Exception as error:  # torch.load's failures have no common class
        raise UserError(
            "not an exported program that is safe to load",
            expected="a .pt2 file written by `hwnas export`",
            found=error,
            where=path,
        ) from error
