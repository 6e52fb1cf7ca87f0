"""torch `.pt2`: the exported program, for torch itself, ExecuTorch, AOTInductor.

`torch.export.load` can run code in the archive (pickles, compiled parts, expressions). So only
files that this hwnas wrote are opened by default, see `exporters.own`.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hwnas import __version__
from hwnas.core.confined import read_regular
from hwnas.core.errors import UserError
from hwnas.core.store import explained
from hwnas.exporters.base import BatchConfig, Format, Source
from hwnas.exporters.capture import capture
from hwnas.exporters.own import remember, require_own
from hwnas.interfaces import Exporter, Images, ModelFile, OpenModel

if TYPE_CHECKING:
    import torch

__all__ = ["Config", "build", "captured", "network_of", "open_trusted"]

IN_PROCESS = True

FILE_NAME = "model.pt2"
MAX_BYTES = 1 << 31

USAGE = """
import torch  # loading a .pt2 file can run code in it: use files that you trust

logits = torch.export.load("{file}").module()(torch.from_numpy(x)).detach().numpy()
"""


class Config(BatchConfig):
    """Settings of the exported program."""

    name: Literal["pt2"] = "pt2"

    @property
    def file(self) -> str:
        """Path of the model in a bundle, `model.pt2`.

        If a bundle has the format with several settings, labels are added to the names
        (`exporters.labels`).
        """
        return FILE_NAME


def build(config: Config) -> Exporter:
    """An exporter to `model.pt2`, BN folded: `torch.export.load(path).module()` runs it."""
    return _Pt2(config)


@dataclass(frozen=True)
class _Pt2(Format):
    config: Config

    def contents(self, source: Source) -> dict[str, bytes]:
        """The archive of the program; `source.metadata` is its extra file `hwnas.json`."""
        import torch

        program = captured(source.model, source.input_shape, self.config.dynamic_batch)
        stream = io.BytesIO()
        facts = json.dumps({"hwnas_version": __version__, **source.metadata})
        torch.export.save(program, stream, extra_files={"hwnas.json": facts})
        content = stream.getvalue()
        remember(content)
        return {FILE_NAME: content}

    def describe(self, files: Sequence[Path]) -> ModelFile:
        """The manifest entry of the file."""
        return ModelFile(FILE_NAME, "pt2", "fp32", batch=self.config.batch)

    def open_model(self, path: Path, *, threads: int = 1) -> OpenModel:
        """Opens a program that this hwnas wrote, in torch, with `threads` threads of this process.

        Raises:
            CannotRunHere: the program is not recorded as written by this hwnas; use `open_trusted`.
            UserError: the file is not an exported program.
        """
        content = _read(path)
        require_own(content, path)
        return _loaded(content, path)


def captured(
    model: torch.nn.Module, input_shape: Sequence[int], dynamic_batch: bool = True
) -> torch.export.ExportedProgram:
    """The program of a network, BN folded; raises as `capture`."""
    import torch

    from hwnas.exporters.fold import folded

    example = torch.zeros(2 if dynamic_batch else 1, *input_shape)
    dynamic = ({0: torch.export.Dim("batch")},) if dynamic_batch else None
    net = folded(model, input_shape)
    for parameter in net.parameters():
        parameter.requires_grad_(False)
    with torch.no_grad():
        return capture(net, example, dynamic)


def network_of(path: Path) -> torch.nn.Module:
    """Loads a trusted program as a module on which, unlike torch's own, `eval()` works."""
    import torch

    module: torch.fx.GraphModule = torch.export.load(path).module()
    for name in ("train", "eval"):
        module.__dict__.pop(name, None)
    _restore_layers(module)
    return module


def _restore_layers(module: torch.fx.GraphModule) -> None:
    """Makes convolutions and linear layers modules again, with their names.

    `weight_rounding` finds layers by their class.
    """
    import torch

    aten, made = torch.ops.aten, dict[str, list[Any]]()
    of_maps = {kind for one in (aten.conv1d, aten.conv2d) for kind in (one.default, one.padding)}
    for node in list(module.graph.nodes):
        if node.target not in {*of_maps, aten.linear.default}:
            continue
        x, weight, *how = node.args
        name, _, leaf = str(weight.target).rpartition(".")
        bias = how[0] if how else None
        has_names = name and leaf == "weight" and (bias is None or bias.target == f"{name}.bias")
        if weight.op != "get_attr" or not has_names or made.setdefault(name, how) != how:
            continue  # a function, or one weight in different layers
        layer = module.get_submodule(name)
        if type(layer) is torch.nn.Module:
            values = dict(layer.named_parameters())
            is_conv = node.target is not aten.linear.default
            layer = _layer(values, how[1:] if is_conv else None)
            parent, _, leaf = name.rpartition(".")
            setattr(module.get_submodule(parent), leaf, layer)
        with module.graph.inserting_before(node):
            node.replace_all_uses_with(module.graph.call_module(name, (x,)))
        module.graph.erase_node(node)
    module.graph.eliminate_dead_code()
    module.recompile()


def _layer(values: Mapping[str, Any], options: Sequence[Any] | None) -> torch.nn.Module:
    """A layer with these parameters. `options`: stride, padding, dilation, groups; None: linear.

    Kernels have one or two axes. `padding` is a size or a name, as in `nn.Conv2d`.
    """
    import torch

    n_outputs, n_inputs, *kernel = values["weight"].shape
    layer: torch.nn.Linear | torch.nn.Conv1d | torch.nn.Conv2d
    if options is None:
        layer = torch.nn.Linear(n_inputs, n_outputs)
    else:
        kind = torch.nn.Conv2d if len(kernel) == 2 else torch.nn.Conv1d
        names = ("stride", "padding", "dilation", "groups")
        how: dict[str, Any] = {"groups": 1, **dict(zip(names, options, strict=False))}
        layer = kind(n_inputs * how["groups"], n_outputs, tuple(kernel), **how)
    layer.weight = values["weight"]
    layer.bias = values.get("bias")
    return layer


def open_trusted(path: Path, *, threads: int = 1) -> OpenModel:
    """Opens a program from any source; this can run code in it.

    Raises:
        UserError: the file is not an exported program.
    """
    return _loaded(_read(path), path)


def _read(path: Path) -> bytes:
    """Reads the file once, so that the checked bytes are the loaded bytes."""
    with explained("read a model", path):
        return read_regular(path, at_most=MAX_BYTES)


def _loaded(content: bytes, path: Path) -> OpenModel:
    import torch

    try:
        program = torch.export.load(io.BytesIO(content))
        module = program.module()
    except Exception as error:  # torch can raise any exception here
        raise UserError(
            "torch rejects the file",
            found=error,
            where=path,
            fix="export the file again; a file of a newer version needs a newer torch",
        ) from error
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
