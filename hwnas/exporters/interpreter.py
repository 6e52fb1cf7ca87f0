"""`.tflite` files in the interpreter of LiteRT, with XNNPACK, as on phones."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hwnas.builders.tflite_graph import INPUT, Graph, package, package_version
from hwnas.core.confined import read_regular
from hwnas.core.errors import UserError
from hwnas.core.store import explained
from hwnas.interfaces import Images, OpenModel

__all__ = ["Interpreted", "litert_model", "metadata", "value_ranges"]

BATCH = 16
MAX_BYTES = 1 << 31  # limit of flatbuffer offsets


@contextlib.contextmanager
def _without_notices() -> Iterator[None]:
    """Discards what LiteRT writes to stderr (its delegates); errors are exceptions."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # stderr is closed, or there is no /dev
            kept = os.dup(2)
            stack.callback(os.close, kept)
            nowhere = os.open(os.devnull, os.O_WRONLY)
            stack.callback(os.close, nowhere)
            os.dup2(nowhere, 2)
            stack.callback(os.dup2, kept, 2)
        yield


class Interpreted:
    """A `.tflite` file; calling it with images [B, C, H, W] returns the outputs of the file.

    `batch`: the only supported B; None: any.
    """

    def __init__(self, content: bytes, *, where: object, threads: int = 1) -> None:
        """Opens a file.

        Raises:
            UserError: LiteRT is not installed, too old, or rejects the file.
        """
        interpreter = package("interpreter").Interpreter
        self._where = where
        try:
            with _without_notices():
                self._model: Any = interpreter(model_content=content, num_threads=threads)
                self._model.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise UserError(
                "LiteRT rejects the file",
                found=error,
                where=where,
                fix="export the file again, or upgrade ai-edge-litert for a file of a newer LiteRT",
            ) from error
        (given,) = self._model.get_input_details()
        self._given, self._size = given["index"], [int(side) for side in given["shape"]]
        self.batch = None if given["shape_signature"][0] == -1 else self._size[0]

    def __call__(self, x: Images) -> list[Images]:
        """The outputs, in the order of the file."""
        _, height, width, channels = self._size
        if x.shape[1:] != (channels, height, width):
            raise UserError(
                "the images do not have the input size of the file",
                expected=f"images of shape [n, {channels}, {height}, {width}]",
                found=f"images of shape {list(x.shape)}",
                where=self._where,
                fix="the file may belong to another network: export this network again",
            )
        if len(x) != self._size[0]:
            if self.batch is not None:
                raise UserError(
                    "the file has a fixed batch size",
                    expected=f"batches of {self.batch} images",
                    found=f"a batch of {len(x)} images",
                    where=self._where,
                    fix="give batches of this size, or export with dynamic_batch=true",
                )
            self._size[0] = len(x)
            self._model.resize_tensor_input(self._given, self._size)
            self._model.allocate_tensors()
        self._model.set_tensor(self._given, np.ascontiguousarray(x.transpose(0, 2, 3, 1)))
        self._model.invoke()
        return [self._model.get_tensor(t["index"]) for t in self._model.get_output_details()]

    def fell_out(self) -> list[str] | None:
        """Operators that XNNPACK does not run, which use slower kernels; None if unknown."""
        run = self._delegation()
        return None if run is None else run[1]

    def delegated(self) -> float | None:
        """Share of the operators that XNNPACK runs, in [0, 1]; None if unknown."""
        run = self._delegation()
        return None if run is None else 1 - len(run[1]) / max(run[0], 1)

    def _delegation(self) -> tuple[int, list[str]] | None:
        """Number of operators in the file, and the names of those that XNNPACK does not run."""
        if not hasattr(self._model, "_get_ops_details"):
            return None
        n_operators = sum(op["op_name"] != "DELEGATE" for op in self._model._get_ops_details())
        writer: dict[int, Mapping[str, Any]] = {}
        for op in self._model._get_ops_details():  # delegates come after their operators
            writer |= {int(tensor): op for tensor in op["outputs"]}
        found: dict[int, str] = {}
        waiting = [int(tensor["index"]) for tensor in self._model.get_output_details()]
        seen: set[int] = set()
        while waiting:
            tensor = waiting.pop()
            if tensor in seen or tensor not in writer:
                continue
            seen.add(tensor)
            op = writer[tensor]
            if op["op_name"] != "DELEGATE":
                found[op["index"]] = str(op["op_name"])
            waiting += [int(source) for source in op["inputs"] if source >= 0]
        return n_operators, sorted(found.values())


def litert_model(path: Path, *, threads: int = 1) -> OpenModel:
    """A `.tflite` file on the CPU. Its input is NCHW, as for all other formats.

    Raises:
        UserError: the file does not load, or LiteRT is too old.
    """
    path = Path(path)
    with explained("read the model", path):
        content = read_regular(path, at_most=MAX_BYTES)
    model = Interpreted(content, where=path, threads=threads)

    def run(x: Images) -> Images:
        return model(x)[0]

    name = f"litert {package_version()}"
    return OpenModel(run, name, model.batch, delegated=model.delegated())


def metadata(content: bytes, *, where: object) -> dict[str, str]:
    """The metadata of a `.tflite` file, by name.

    Raises:
        UserError: LiteRT is not installed or too old, or the file is not a `.tflite` file.
    """
    schema = package("schema_py_generated")
    found: dict[str, str] = {}
    try:
        model = schema.Model.GetRootAs(content, 0)
        for i in range(model.MetadataLength()):
            item = model.Metadata(i)
            text = model.Buffers(item.Buffer()).DataAsNumpy()
            found[item.Name().decode()] = bytes(text).decode()
    except Exception as error:  # offsets of a damaged file can raise any exception
        raise UserError(
            "not a .tflite file", found=error, where=where, fix="export the file again"
        ) from error
    return found


def value_ranges(graph: Graph, images: Images) -> dict[str, tuple[float, float]]:
    """Minimum and maximum of every value of a float graph over images [n, C, H, W].

    They are the extremes over all images. A moving average of extremes per batch would clip.
    """
    names = [op.output for op in graph.ops]
    watched = graph.copy()
    watched.is_open = True
    model = Interpreted(watched.serialized(outputs=names), where="calibration")
    found = {INPUT: (float(images.min()), float(images.max()))}
    for start in range(0, len(images), BATCH):
        outputs = model(images[start : start + BATCH])[1:]
        for name, value in zip(names, outputs, strict=True):
            low, high = found.get(name, (np.inf, -np.inf))
            found[name] = min(low, float(value.min())), max(high, float(value.max()))
    return found
