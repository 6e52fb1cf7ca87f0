"""The fp32 ONNX graph from which all other ONNX formats start, exported at most once."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hwnas import __version__
from hwnas.core.errors import HwnasError, UserError, out_of_memory
from hwnas.core.store import canonical_json
from hwnas.exporters.capture import WITHOUT_BRANCH, cause_text, place_of, quiet

if TYPE_CHECKING:
    import onnx
    import torch

__all__ = [
    "FILE_NAME",
    "INPUT_NAME",
    "OPSET",
    "OUTPUT_NAME",
    "STEP_INPUTS",
    "STEP_OUTPUTS",
    "exported",
    "float_graph",
    "places",
]

FILE_NAME = "model.onnx"
INPUT_NAME, OUTPUT_NAME = "input", "logits"
STEP_INPUTS, STEP_OUTPUTS = ("token", "state"), (OUTPUT_NAME, "next_state")
"""Names of the inputs and outputs of one step of a recurrent network."""
OPSET = 18
_KEY = "hwnas_graph"  # metadata key: hash of network and settings


def float_graph(
    model: torch.nn.Module,
    *,
    input_shape: Sequence[int],
    folder: Path,
    metadata: Mapping[str, str] | None = None,
    opset: int = OPSET,
    dynamic_batch: bool = True,
) -> onnx.ModelProto:
    """The graph of `model` from the torch.export-based exporter, with folded BN and constants.

    The export takes seconds, and many formats start from this graph. So a `model.onnx` in `folder`
    with the same weights and settings is reused. Nothing is written.
    """
    import onnx

    from hwnas.builders.onnx import with_least_ir

    settings = [list(input_shape), opset, dynamic_batch]
    properties = {
        "hwnas_version": __version__,
        **(metadata or {}),
        _KEY: f"{_weights_hash(model)} {canonical_json(settings)}",
    }
    path = Path(folder) / FILE_NAME
    if path.is_file():
        with contextlib.suppress(Exception):  # not a model, so it will be replaced
            stored = onnx.load(path)
            if {item.key: item.value for item in stored.metadata_props} == properties:
                return with_least_ir(stored)
    return exported(
        model, input_shape, properties=properties, opset=opset, dynamic_batch=dynamic_batch
    )


def exported(
    model: torch.nn.Module,
    input_shape: Sequence[int],
    *,
    properties: Mapping[str, str],
    opset: int = OPSET,
    dynamic_batch: bool = True,
    outputs: Sequence[str] = (OUTPUT_NAME,),
) -> onnx.ModelProto:
    """The ONNX graph of a module with one output tensor per name in `outputs`.

    Raises:
        UserError: torch.onnx cannot translate the module.
    """
    import onnx

    from hwnas.builders.onnx import with_least_ir

    proto = _translated(model, input_shape, opset, dynamic_batch, outputs)
    _strip(proto)
    onnx.helper.set_model_props(proto, dict(properties))
    with_least_ir(proto)
    onnx.checker.check_model(proto, full_check=True)
    return proto


def _translated(
    model: torch.nn.Module,
    input_shape: Sequence[int],
    opset: int,
    dynamic_batch: bool,
    outputs: Sequence[str] = (OUTPUT_NAME,),
) -> onnx.ModelProto:
    import torch

    from hwnas.exporters.fold import folded
    from hwnas.exporters.step import Step

    batch, n = {0: torch.export.Dim("batch")}, 2 if dynamic_batch else 1
    network, inputs = folded(model, input_shape), [INPUT_NAME]
    example: tuple[torch.Tensor, ...] = (torch.zeros(n, *input_shape),)
    if getattr(model, "reads_tokens", False):
        network, inputs, outputs = Step(network), [*STEP_INPUTS], [*STEP_OUTPUTS]
        example = network.example(n)
    with _translating(opset), quiet(), torch.no_grad():
        program = torch.onnx.export(
            network,
            example,
            dynamo=True,
            input_names=inputs,
            output_names=list(outputs),
            dynamic_shapes=(batch,) * len(inputs) if dynamic_batch else None,
            opset_version=opset,
            verbose=False,
        )
    assert program is not None  # only the older exporter returns None
    return program.model_proto


@contextlib.contextmanager
def _translating(opset: int) -> Iterator[None]:
    """Raises errors of torch's exporter as `UserError`.

    Raises:
        UserError: ONNX cannot express the network; the root cause names the operator or the branch.
    """
    try:
        yield
    except (HwnasError, MemoryError):
        raise
    except Exception as error:  # torch raises dozens of unrelated classes
        if out_of_memory(error) is not None:
            raise
        raise UserError(
            "ONNX cannot express the network",
            expected=f"operators of ONNX opset {opset}, no branches on the values of tensors, and"
            " any batch size",
            found=cause_text(error),
            where=place_of(error),
            fix=f"{WITHOUT_BRANCH}; if the batch size is fixed, set dynamic_batch: false for the"
            " format (in Python: dynamic_batch=False)",
        ) from error


def places(model: torch.nn.Module, input_shape: Sequence[int], values: Sequence[str]) -> list[str]:
    """The modules of `model`, and the operators in them, that compute values of its graph.

    values: names of outputs of nodes in `float_graph`. The result has no duplicates. It is empty
        if the graph cannot be made again, or has other values.
    """
    found: dict[str, None] = {}
    with contextlib.suppress(HwnasError):
        graph = _translated(model, input_shape, OPSET, dynamic_batch=True).graph
        nodes = {str(name): node for node in graph.node for name in node.output}
        for value in values:
            if value in nodes:
                found |= dict.fromkeys(_place(nodes[value]))
    return list(found)


def _place(node: onnx.NodeProto) -> Iterator[str]:
    """The module and the operator of torch that a node of the graph comes from."""
    facts = {item.key.rpartition(".")[2]: item.value for item in node.metadata_props}
    scopes = re.findall(r"'([^']*)'", facts.get("name_scopes", ""))
    kinds = re.findall(r"'([^']*)'", facts.get("class_hierarchy", ""))
    if len(scopes) < 2 or len(scopes) != len(kinds):
        return  # the exporter of torch made this node itself
    module, operator = scopes[-2], kinds[-1].removesuffix(".default")
    kind = kinds[-2].rpartition(".")[2]
    yield f"{operator} in {module} ({kind})" if module else f"{operator} in forward() of {kind}"


def _weights_hash(model: torch.nn.Module) -> str:
    """sha256 of the modules and all tensors of a network."""
    digest = hashlib.sha256(repr(model).encode())
    digest.update(repr(getattr(model, "definition", None)).encode())
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _strip(proto: onnx.ModelProto) -> None:
    """Removes debug information of the exporter, which contains source lines and local paths."""
    graph = proto.graph
    for item in (proto, graph, *graph.node, *graph.value_info, *graph.input, *graph.output):
        del item.metadata_props[:]
        if hasattr(item, "doc_string"):
            item.ClearField("doc_string")
    del graph.value_info[:]
