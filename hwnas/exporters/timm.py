"""Weights, and a `model.py` that builds the network without hwnas, in timm or in plain torch.

The format is called `timm` in configurations, in bundles and on the command line, because most
networks are timm models. `form` in `arch.json` states which of the two a network is.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from hwnas import __version__
from hwnas.core.config import StrictModel
from hwnas.core.confined import regular
from hwnas.core.errors import UserError
from hwnas.core.store import read_json
from hwnas.core.tensor_file import in_order
from hwnas.exporters.base import Format, Source
from hwnas.interfaces import Exporter, Images, ModelFile, OpenModel

if TYPE_CHECKING:
    import torch

__all__ = ["COMPANIONS", "WEIGHTS", "Config", "build", "load_network"]

IN_PROCESS = True

WEIGHTS = "weights.safetensors"
COMPANIONS = ("arch.json", "model.py")  # the definition of the network, and the code that reads it
ENDINGS = {  # endings of model.py, by the form of the definition
    "timm": """
register(Path(__file__).with_name("arch.json"))
""",
    "torch": '''

def create_model(
    features_only: bool = False, out_indices: Sequence[int] | None = None
) -> nn.Module:
    """The network with random weights: `load_state_dict(load_file("weights.safetensors"))`.

    `features_only`: a `FeaturePyramid`, which loads the same file with `strict=False`.
    """
    network = load(Path(__file__).with_name("arch.json"))
    return FeaturePyramid(network, out_indices) if features_only else network
''',
    "graph": '''

def create_model() -> nn.Module:
    """The network with random weights: `load_state_dict(load_file("weights.safetensors"))`."""
    return load(Path(__file__).with_name("arch.json"))
''',
}
ENDINGS["recurrent"] = ENDINGS["graph"]

USAGE = """
import json, sys

import torch
from safetensors.torch import load_file

sys.path.insert(0, "timm")  # the folder of this bundle
import model

name = json.load(open("timm/arch.json"))["name"]
if hasattr(model, "create_model"):
    network = model.create_model()
else:  # model.py has registered the network in timm
    import timm

    network = timm.create_model(name)
network.load_state_dict(load_file("{file}"))
with torch.inference_mode():
    logits = network.eval()(torch.from_numpy(x)).numpy()
"""


class Config(StrictModel):
    """No settings."""

    name: Literal["timm"] = "timm"


def build(config: Config) -> Exporter:
    """An exporter to `arch.json`, `model.py`, `weights.safetensors`.

    Networks of timm's blocks: `import model, timm; timm.create_model("hwnas_<arch key>",
    pretrained=True)`, also with `features_only=True`. Other networks (channel shuffle of FBNet,
    projected shortcuts of AttentiveNAS, an activation after the residual add) need only torch:
    `model.create_model()`, and `safetensors.torch.load_file` for the weights.
    """
    return _WeightsAndCode()


def load_network(weights: Path) -> torch.nn.Module:
    """Builds the network of a weights file from the definition next to it; in eval mode.

    Raises:
        UserError: weights and definition do not fit each other.
    """
    from safetensors.torch import load_file

    from hwnas.nets.subnet import build_from_definition

    path = Path(weights)
    try:
        model = build_from_definition(read_json(path.with_name(COMPANIONS[0])), seed=None)
        model.load_state_dict(load_file(regular(path)))
    except UserError:
        raise
    except Exception as error:  # a damaged definition or file can raise any exception
        raise UserError(
            "the weights do not fit their definition",
            found=error,
            where=f"{path}, {COMPANIONS[0]}",
            fix="export the network again",
        ) from error
    return model.eval()


@dataclass(frozen=True)
class _WeightsAndCode(Format):
    TAKES_TOKENS: ClassVar[bool] = True

    def contents(self, source: Source) -> dict[str, bytes]:
        """Weights with `metadata` in their header, definition, and the code that reads both.

        Raises:
            UserError: the network has no definition, or computes something else.
        """
        from safetensors.torch import save

        from hwnas.nets import graph_net, plain_net, pyramid, recurrent_net, timm_net
        from hwnas.nets.subnet import computes_as_defined, definition_of

        definition = definition_of(source.model)
        if not computes_as_defined(source.model):
            raise UserError(
                "the network was changed after hwnas had built it",
                expected="the layers of its definition, which this format stores as code",
                fix="export the network in another format, such as onnx or pt2",
            )
        modules = {
            "timm": (timm_net,),
            "torch": (plain_net, pyramid),
            "graph": (plain_net, graph_net),
            "recurrent": (recurrent_net,),
        }[definition["form"]]
        lines = "\n\n".join(map(inspect.getsource, modules)).splitlines(keepends=True)
        code = "".join(line for line in lines if not line.startswith("from hwnas."))
        state = {key: v.cpu().contiguous() for key, v in source.model.state_dict().items()}
        arch, model = COMPANIONS
        return {
            WEIGHTS: in_order(save(state, {"hwnas_version": __version__, **source.metadata})),
            arch: (json.dumps(definition, indent=1, allow_nan=False) + "\n").encode(),
            model: (code + ENDINGS[definition["form"]]).encode(),
        }

    def describe(self, files: Sequence[Path]) -> ModelFile:
        """The manifest entry of the weights; definition and code are in the same folder."""
        return ModelFile(f"timm/{WEIGHTS}", "timm", "fp32")

    def open_model(self, path: Path, *, threads: int = 1) -> OpenModel:
        """Opens the network in torch, by its definition, with `threads` threads of this process."""
        import torch

        model = load_network(path)

        def run(x: Images) -> Images:
            with torch.inference_mode():
                found: Images = model(torch.from_numpy(x)).numpy()
            return found

        return OpenModel(run, f"torch {torch.__version__}")
