"""Identifies the ONNX files in a folder of exported networks by their contents."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hwnas.core.json_data import parse_json

if TYPE_CHECKING:
    import onnx

__all__ = ["find_onnx", "static_batch"]

FILES = {"onnx": "model.onnx", "fp16": "model.fp16.onnx", "int8": "model.int8.onnx"}


def find_onnx(
    folder: Path, format: str, *, symmetric: bool = False, largest_batch: int = 1
) -> Path | None:
    """Finds the file of the format `onnx`, `fp16` or `int8` in a bundle; None if there is none.

    If the bundle has several files of the format, the first one that meets both conditions is
    returned. If none does, the first of all is returned.

    symmetric: whether the metadata of an int8 file must state signed activations.
    largest_batch: the fixed batch size of a file, if it has one, must be at least this.
    """
    import onnx

    plain = FILES[format]
    stem = plain.removesuffix(".onnx")
    labelled = sorted(
        path for path in folder.glob(f"{stem}.*.onnx") if not _is_of_another(path.name, stem)
    )
    found = [path for path in (folder / plain, *labelled) if path.is_file()]
    for path in found if len(found) > 1 else ():
        model = onnx.load(path)
        facts = {item.key: item.value for item in model.metadata_props}
        is_symmetric = _is_symmetric(facts.get("int8", "{}"), path)
        batch = static_batch(model)
        if is_symmetric == symmetric and (batch is None or batch >= largest_batch):
            return path
    return found[0] if found else None


def _is_symmetric(text: str, path: Path) -> bool:
    facts = parse_json(text, where=path, problem="cannot read how a model was rounded")
    return isinstance(facts, dict) and bool(facts.get("symmetric", False))


def _is_of_another(name: str, stem: str) -> bool:
    """Whether the file belongs to a format with a longer stem: model.int8.onnx, for `model`."""
    longer = [f.removesuffix(".onnx") for f in FILES.values() if len(f) > len(f"{stem}.onnx")]
    return any(name.startswith(f"{other}.") for other in longer)


def static_batch(model: onnx.ModelProto) -> int | None:
    """The fixed batch size of a graph; None: any."""
    dim = model.graph.input[0].type.tensor_type.shape.dim[0]
    return int(dim.dim_value) if dim.HasField("dim_value") else None
