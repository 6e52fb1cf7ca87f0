"""Weights and a `model.py` that builds the network without hwnas, from timm or else torch."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from hwnas import __version__
from hwnas.core.config import StrictModel
from hwnas.core.errors import UserError
from hwnas.core.store import read_json, write_bytes, write_json, write_text
from hwnas.exporters.manifest import ModelFile
from hwnas.exporters.opened import Images, OpenModel
from hwnas.interfaces import Exporter

if TYPE_CHECKING:
    import torch

__all__ = ["COMPANIONS", "WEIGHTS", "Config", "build", "describe", "load_network", "open_model"]

WEIGHTS = "weights.safetensors"
COMPANIONS = ("arch.json", "model.py")  # what the weights are of, and the code that reads it
ENDINGS = {  # of model.py, by the form of the definition
    "timm": """
register(Path(__file__).with_name("arch.json"))
""",
    "torch": '''

def create_model() -> nn.Module:
    """The network, its weights random: `load_state_dict(load_file("weights.safetensors"))`."""
    return load(Path(__file__).with_name("arch.json"))
''',
}


class Config(StrictModel):
    """Nothing to choose."""

    name: Literal["timm"] = "timm"


def build(config: Config) -> Exporter:
    """An exporter to `arch.json`, `model.py`, `weights.safetensors`.

    `import model, timm; timm.create_model("hwnas_<arch key>", pretrained=True)` is the network. One
    that timm's blocks cannot say (FBNet's channel shuffle, AttentiveNAS's projected shortcuts, an
    activation behind the residual add) needs torch alone: `model.create_model()`, and
    `safetensors.torch.load_file` for its weights.
    """
    return _TimmExporter()


def describe(config: Config, files: Sequence[Path]) -> ModelFile:
    """The manifest's entry of what `export` wrote."""
    return ModelFile(f"timm/{WEIGHTS}", "timm", "fp32")


def load_network(weights: Path) -> torch.nn.Module:
    """The network, in eval mode, of a file of weights and the definition beside it.

    Raises:
        UserError: they do not fit each other.
    """
    from safetensors.torch import load_file

    from hwnas.nets.subnet import build_from_definition

    path = Path(weights)
    try:
        model = build_from_definition(read_json(path.with_name(COMPANIONS[0])), seed=None)
        model.load_state_dict(load_file(path))
    except UserError:
        raise
    except Exception as error:  # whatever a damaged definition or file leads to
        raise UserError("weights do not fit their definition", found=error, where=path) from error
    return model.eval()


def open_model(path: Path, *, threads: int = 1) -> OpenModel:
    """The network in torch, by its definition, with `threads` of the process's own."""
    import torch

    model = load_network(path)

    def run(x: Images) -> Images:
        with torch.inference_mode():
            found: Images = model(torch.from_numpy(x)).numpy()
        return found

    return OpenModel(run, f"torch {torch.__version__}")


@dataclass(frozen=True)
class _TimmExporter:
    def export(
        self,
        model: torch.nn.Module,
        *,
        input_shape: Sequence[int],
        folder: Path,
        metadata: Mapping[str, str] | None = None,
        images: Images | None = None,
    ) -> tuple[Path, ...]:
        """See `interfaces.Exporter`; `metadata` goes into the header of the weights.

        Raises:
            UserError: `model` does not know its definition.
        """
        from safetensors.torch import save

        from hwnas.nets import plain_net, timm_net
        from hwnas.nets.subnet import definition_of

        definition = definition_of(model)
        source = inspect.getsource(timm_net if definition["form"] == "timm" else plain_net)
        ending = ENDINGS[definition["form"]]
        state = {key: value.cpu().contiguous() for key, value in model.state_dict().items()}
        weights, arch, code = (Path(folder) / name for name in (WEIGHTS, *COMPANIONS))
        write_bytes(weights, save(state, {"hwnas_version": __version__, **(metadata or {})}))
        write_json(arch, definition)
        write_text(code, source + ending)
        return weights, arch, code
