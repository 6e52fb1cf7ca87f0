"""torch `.pt2`: the exported program, for torch itself, ExecuTorch, AOTInductor."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from hwnas import __version__
from hwnas.core.config import StrictModel
from hwnas.core.errors import UserError
from hwnas.core.store import write_bytes
from hwnas.exporters.manifest import ModelFile
from hwnas.exporters.opened import Images, OpenModel
from hwnas.interfaces import Exporter

if TYPE_CHECKING:
    import torch

__all__ = ["Config", "build", "describe", "open_model"]

FILE_NAME = "model.pt2"


class Config(StrictModel):
    """Settings of the exported program."""

    name: Literal["pt2"] = "pt2"
    dynamic_batch: bool = Field(True, description="any batch size; otherwise exactly 1")


def build(config: Config) -> Exporter:
    """An exporter to `model.pt2`, BN folded: `torch.export.load(path).module()` runs it."""
    return _Pt2Exporter(config)


def describe(config: Config, files: Sequence[Path]) -> ModelFile:
    """The manifest's entry of what `export` wrote."""
    return ModelFile(FILE_NAME, "pt2", "fp32", batch=None if config.dynamic_batch else 1)


def open_model(path: Path, *, threads: int = 1) -> OpenModel:
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


@dataclass(frozen=True)
class _Pt2Exporter:
    config: Config

    def export(
        self,
        model: torch.nn.Module,
        *,
        input_shape: Sequence[int],
        folder: Path,
        metadata: Mapping[str, str] | None = None,
        images: Images | None = None,
    ) -> tuple[Path, ...]:
        """See `interfaces.Exporter`; `metadata` is the archive's extra file `hwnas.json`."""
        import torch

        from hwnas.exporters.fold import folded

        is_dynamic = self.config.dynamic_batch
        example = torch.zeros(2 if is_dynamic else 1, *input_shape)
        dynamic = ({0: torch.export.Dim("batch")},) if is_dynamic else None
        net = folded(model).cpu()
        for parameter in net.parameters():
            parameter.requires_grad_(False)
        with torch.no_grad():
            program = torch.export.export(net, (example,), dynamic_shapes=dynamic)
        stream = io.BytesIO()
        facts = json.dumps({"hwnas_version": __version__, **(metadata or {})})
        torch.export.save(program, stream, extra_files={"hwnas.json": facts})
        path = Path(folder) / FILE_NAME
        write_bytes(path, stream.getvalue())
        return (path,)


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
