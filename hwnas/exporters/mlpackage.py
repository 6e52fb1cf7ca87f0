"""Core ML packages as one zip file, and their ML programs read back on any system.

Core ML itself runs on Apple's systems only. Elsewhere, the saved program and its weights are read
from the file and interpreted in torch (`mil.py`).
"""

from __future__ import annotations

import io
import json
import tempfile
import uuid
import zipfile
from pathlib import Path
from typing import Any

from hwnas.core.confined import read_regular
from hwnas.core.env import require
from hwnas.core.errors import UserError
from hwnas.core.store import explained
from hwnas.exporters.capture import quiet
from hwnas.exporters.mil import Interpreted
from hwnas.interfaces import OpenModel

__all__ = ["coreml_model", "zipped"]

EXTRA = "coreml"
ROOT = "model.mlpackage"
SPEC, WEIGHTS = "com.apple.CoreML/model.mlmodel", "com.apple.CoreML/weights"
WEIGHT_FILE = "weight.bin"
MAX_BYTES = 1 << 31
DATE = (1980, 1, 1, 0, 0, 0)  # equal models, equal files
NOT_HERE = "Core ML runs on Apple's systems; the saved program is interpreted in torch"


def zipped(model: Any) -> bytes:
    """The package of an MLModel as a zip file, without its random identifiers."""
    names = {SPEC: "model.mlmodel", WEIGHTS: "weights"}
    ids = {path: str(uuid.uuid5(uuid.NAMESPACE_URL, path)) for path in names}
    about = {SPEC: "CoreML Model Specification", WEIGHTS: "CoreML Model Weights"}
    items = {
        ids[path]: {
            "author": "com.apple.CoreML",
            "description": about[path],
            "name": name,
            "path": path,
        }
        for path, name in names.items()
    }
    manifest = {
        "fileFormatVersion": "1.0.0",
        "itemInfoEntries": items,
        "rootModelIdentifier": ids[SPEC],
    }
    parts = {
        "Manifest.json": json.dumps(manifest, indent=4).encode(),
        f"Data/{SPEC}": model.get_spec().SerializeToString(deterministic=True),
        f"Data/{WEIGHTS}/{WEIGHT_FILE}": Path(model.weights_dir, WEIGHT_FILE).read_bytes(),
    }
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in parts.items():
            archive.writestr(zipfile.ZipInfo(f"{ROOT}/{name}", DATE), content)
    return stream.getvalue()


def coreml_model(path: Path) -> OpenModel:
    """The program of a zipped package, interpreted in torch; one image at a time.

    Raises:
        UserError: coremltools is not installed, or the file is not such a package.
        CannotRunHere: the program has an operator that the interpreter lacks.
    """
    with quiet():
        coremltools = require("coremltools", extra=EXTRA)
        mil = require("coremltools.converters.mil.frontend.milproto.load", extra=EXTRA)
    path = Path(path)
    with explained("read the model", path):
        content = read_regular(path, at_most=MAX_BYTES)
    try:
        spec_bytes, weights = _parts(content)
        spec = coremltools.proto.Model_pb2.Model()
        spec.ParseFromString(spec_bytes)
        _check_weights(spec)
        with tempfile.TemporaryDirectory() as temporary, quiet():
            folder = Path(temporary, "weights")
            folder.mkdir()
            (folder / WEIGHT_FILE).write_bytes(weights)
            program = mil.load(spec, spec.specificationVersion, file_weights_dir=str(folder))
    except UserError:
        raise
    except Exception as error:  # a damaged file can raise any exception
        raise UserError(
            "not a zipped Core ML package", found=error, where=path, fix="export the file again"
        ) from error
    (main,) = program.functions.values()
    name = f"coremltools {coremltools.__version__}, interpreted"
    return OpenModel(Interpreted(main, where=path), name, 1, untimed=NOT_HERE)


def _parts(content: bytes) -> tuple[bytes, bytes]:
    """Specification and weights.

    Raises:
        ValueError: the archive lacks one of them, or it is too large.
    """
    found = []
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for name in (f"Data/{SPEC}", f"Data/{WEIGHTS}/{WEIGHT_FILE}"):
            info = archive.getinfo(f"{ROOT}/{name}")
            if info.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"{name} is compressed")
            if info.file_size > MAX_BYTES:
                raise ValueError(f"{name} has {info.file_size:,} bytes, more than {MAX_BYTES:,}")
            found.append(archive.read(info))
    return found[0], found[1]


def _check_weights(spec: Any) -> None:
    """Refuses programs that read other files than their own weights.

    Raises:
        ValueError: names the file.
    """
    expected = f"@model_path/weights/{WEIGHT_FILE}"
    for function in spec.mlProgram.functions.values():
        for block in function.block_specializations.values():
            for operation in block.operations:
                for value in operation.attributes.values():
                    file = value.blobFileValue.fileName
                    if file not in ("", expected):
                        raise ValueError(f"weights in {file!r}")
