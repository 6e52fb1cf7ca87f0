"""`.pte` files in the runtime of ExecuTorch, and which of their operators XNNPACK runs."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hwnas.core.confined import read_regular
from hwnas.core.env import require
from hwnas.core.errors import UserError
from hwnas.core.store import explained
from hwnas.interfaces import Images, OpenModel

__all__ = ["Delegation", "delegation", "executorch_model"]

EXTRA = "executorch"
MAX_BYTES = 1 << 31
SHAPES_ONLY = ("executorch_prim", "aten::view_copy", "dim_order_ops")  # no arithmetic


@dataclass(frozen=True)
class Delegation:
    """Number of operators that XNNPACK executes, and the names of the others, in order."""

    inside: int
    outside: tuple[str, ...]

    @property
    def share(self) -> float:
        """Share of the operators that XNNPACK runs, in [0, 1]."""
        return self.inside / max(self.inside + len(self.outside), 1)


def executorch_model(path: Path, *, threads: int = 1) -> OpenModel:
    """A `.pte` file on the CPU, one image at a time.

    `threads` holds for all programs of this process.

    Raises:
        UserError: ExecuTorch is not installed, or rejects the file.
    """
    runtime = require("executorch.runtime", extra=EXTRA)
    bindings = require("executorch.extension.pybindings.portable_lib", extra=EXTRA)
    path = Path(path)
    with explained("read the model", path):
        content = read_regular(path, at_most=MAX_BYTES)
    bindings._unsafe_reset_threadpool(threads)
    share = delegation(content, where=path).share
    try:
        program = runtime.Runtime.get().load_program(content)
        method = program.load_method("forward")
    except Exception as error:  # the runtime has no public base class of its errors
        raise UserError(
            "ExecuTorch rejects the file",
            found=error,
            where=path,
            fix="export the file again; a file of a newer version needs a newer executorch",
        ) from error

    def run(x: Images, program: Any = program) -> Images:  # a method does not keep its program
        import torch

        found: Images = method.execute((torch.from_numpy(x),))[0].numpy().copy()
        return found

    return OpenModel(run, f"executorch {version('executorch')}", 1, delegated=share)


def delegation(content: bytes, *, where: object = None) -> Delegation:
    """Counts the operators of a program, from the content of its file.

    Raises:
        UserError: the content is not a program of ExecuTorch.
    """
    from executorch.exir._serialize._program import deserialize_pte_binary

    try:
        (plan,) = deserialize_pte_binary(content).program.execution_plan
        program = deserialize_pte_binary(content).program
        blobs = {
            i: program.backend_delegate_data[delegate.processed.index].data
            for i, delegate in enumerate(plan.delegates)
        }
        inside = sum(_n_nodes(bytes(blob)) for blob in blobs.values())
        calls = [step.instr_args for chain in plan.chains for step in chain.instructions]
        names = [plan.operators[c.op_index].name for c in calls if hasattr(c, "op_index")]
    except Exception as error:  # a damaged file can raise any exception
        raise UserError(
            "not a .pte file of this version of ExecuTorch",
            found=error,
            where=where,
            fix="export the file again",
        ) from error
    return Delegation(inside, tuple(n for n in names if not n.startswith(SHAPES_ONLY)))


def _n_nodes(blob: bytes) -> int:
    """Number of nodes of a graph of XNNPACK: `xnodes`, the second field of a flatbuffer."""
    from executorch.backends.xnnpack.serialization.xnnpack_graph_serialize import XNNHeader

    start = XNNHeader.from_bytes(blob[: XNNHeader.EXPECTED_LENGTH]).flatbuffer_offset
    graph = blob[start:]

    def number(at: int, size: int = 4) -> int:
        return int.from_bytes(graph[at : at + size], "little")

    table = number(0)
    fields = table - int.from_bytes(graph[table : table + 4], "little", signed=True)
    offset = number(fields + 6, 2) if number(fields, 2) > 6 else 0
    if not offset:
        return 0
    vector = table + offset
    return number(vector + number(vector))
