"""Shared code of the formats: the exported network, writing of files, common settings.

A format is one module with a `Config` and a `Format`. The `Format` defines the contents of its
files, their description in a bundle, and how to open them.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, NamedTuple

from pydantic import Field

from hwnas.core.config import StrictModel
from hwnas.core.errors import HwnasError, UserError
from hwnas.core.store import write_bytes
from hwnas.exporters.capture import cause_text, quiet
from hwnas.exporters.float_graph import OPSET, float_graph
from hwnas.exporters.opened import onnxruntime_model
from hwnas.interfaces import EightBits, Images, ModelFile, OpenModel

if TYPE_CHECKING:
    import onnx
    import torch

__all__ = [
    "MOST_HALF",
    "OTHER_FORMATS",
    "PROMISES",
    "STATIC_BATCH",
    "BatchConfig",
    "Format",
    "FormatConfig",
    "OnnxConfig",
    "OnnxRuntimeFormat",
    "Promise",
    "Source",
    "converting",
    "half_overflow",
    "unsupported",
]


MOST_HALF = 65504.0
"""Largest number in half precision."""


class Promise(NamedTuple):
    """Required agreement of a file with torch; the fields are those of `ModelFile`."""

    parity_tolerance: float
    min_agreement: float


OTHER_FORMATS = "export the network as onnx, ort or pt2, which have most operators"
"""Way out of a network that a format cannot express."""

PROMISES = {
    "fp32": Promise(1e-4, 1.0),
    "fp16": Promise(0.01, 0.995),  # error 2^-11 per operation, over about 50 layers
    "int8": Promise(0.3, 0.98),  # the agreement is the decisive check
}
"""Required agreement by precision, for files that compute in that precision."""

STATIC_BATCH = ("CoreML", "QNN")
"""Providers of ONNX Runtime that only run graphs with a fixed batch."""

LEAST_ONNXRUNTIME = {18: "1.15", 19: "1.16", 20: "1.17", 21: "1.18", 22: "1.21", 23: "1.24"}
"""Maps an opset to the oldest ONNX Runtime that ran an fp32, an fp16 and an int8 network.

1.15 is the oldest version that was tested.
"""


@dataclass(frozen=True)
class Source:
    """A trained network and other inputs of an exporter; fields as in `interfaces.Exporter.export`.

    `folder` is the destination. It can already contain files of other formats. `images` and
    `held_out` are None instead of empty.
    """

    model: torch.nn.Module
    input_shape: tuple[int, ...]
    folder: Path
    metadata: Mapping[str, str]
    images: Images | None
    held_out: Images | None = None

    def __post_init__(self) -> None:
        for name in ("images", "held_out"):
            if (images := getattr(self, name)) is not None and not len(images):
                object.__setattr__(self, name, None)

    def in_precision(self, precision: str) -> Source:
        """This source; for `fp16` with images, its weights are rounded to half precision.

        Raises:
            UserError: half precision cannot represent a weight of the folded network.
        """
        if precision == "fp16":
            self._require_half()
        if precision != "fp16" or self.images is None:
            return self
        from hwnas.exporters.weight_rounding import half_weights

        return replace(self, model=half_weights(self.model, self.images))

    def _require_half(self) -> None:
        from hwnas.exporters.fold import folded

        for name, weights in folded(self.model, self.input_shape).named_parameters():
            largest = float(weights.detach().abs().max()) if weights.numel() else 0.0
            if not largest <= MOST_HALF:
                raise half_overflow(largest, name)

    def graph(self, *, opset: int = OPSET, dynamic_batch: bool = True) -> onnx.ModelProto:
        """The network as an fp32 ONNX graph, see `float_graph`."""
        return float_graph(
            self.model,
            input_shape=self.input_shape,
            folder=self.folder,
            metadata=self.metadata,
            opset=opset,
            dynamic_batch=dynamic_batch,
        )


def half_overflow(largest: float, where: str) -> UserError:
    """The error for a weight that half precision cannot represent."""
    return UserError(
        "a weight does not fit into half precision",
        expected=f"weights with magnitudes of at most {MOST_HALF:g}",
        found=f"a weight with the magnitude {largest:g}",
        where=where,
        fix="export another precision of this network (in a run, leave fp16 out of the formats to"
        " export), or train with weight decay on this layer",
    )


@contextlib.contextmanager
def converting(runtime: str, file: str) -> Iterator[None]:
    """Suppresses the output of a converter, and raises its errors as `UserError`.

    Raises:
        UserError: the converter failed; its own message names the operator.
    """
    try:
        with quiet():
            yield
    except (HwnasError, MemoryError):
        raise
    except Exception as error:  # converters raise dozens of unrelated classes
        supported = f"operators that the converter of {runtime} supports"
        raise unsupported(runtime, supported, cause_text(error), where=file) from error


def unsupported(runtime: str, expected: str, found: str, *, where: str) -> UserError:
    """The error for a network with operators that a format lacks."""
    return UserError(
        f"{runtime} cannot express the network",
        expected=expected,
        found=found,
        where=where,
        fix=f"replace the operators that {runtime} lacks, or {OTHER_FORMATS}; in a run, remove"
        " this format from the formats to export",
    )


class Format(ABC):
    """An `interfaces.Exporter`; subclasses define three methods. Files are written atomically."""

    TAKES_TOKENS: ClassVar[bool] = False
    """Whether the format can express recurrent networks, which read tokens."""

    def export(
        self,
        model: torch.nn.Module,
        *,
        input_shape: Sequence[int],
        folder: Path,
        metadata: Mapping[str, str] | None = None,
        images: Images | None = None,
        held_out: Images | None = None,
    ) -> tuple[Path, ...]:
        """See `interfaces.Exporter`.

        Raises:
            UserError: the format cannot express the network, or a file cannot be written.
        """
        if getattr(model, "reads_tokens", False) and not self.TAKES_TOKENS:
            raise UserError(
                "the format does not support recurrent networks",
                expected="the format onnx, ort or timm",
                found=f"the format {type(self).__module__.rpartition('.')[2]}",
            )
        folder = Path(folder)
        source = Source(model, tuple(input_shape), folder, metadata or {}, images, held_out)
        files = {folder / name: content for name, content in self.contents(source).items()}
        for path, content in reversed(files.items()):  # the model comes last
            write_bytes(path, content)
        return tuple(files)

    @abstractmethod
    def contents(self, source: Source) -> dict[str, bytes]:
        """Content of every file by its name; the model comes first.

        Raises:
            UserError: the format cannot express the network.
        """

    @abstractmethod
    def describe(self, files: Sequence[Path]) -> ModelFile:
        """See `interfaces.Exporter`."""

    @abstractmethod
    def open_model(self, path: Path, *, threads: int = 1) -> OpenModel:
        """See `interfaces.Exporter`."""


class OnnxRuntimeFormat(Format):
    """A format that ONNX Runtime runs."""

    def open_model(self, path: Path, *, threads: int = 1) -> OpenModel:
        """Opens the file in ONNX Runtime on the CPU, see `opened.onnxruntime_model`."""
        return onnxruntime_model(path, threads=threads)


class FormatConfig(StrictModel):
    """Base of the settings of a format; a folder can have the format with several settings."""

    LABELS: ClassVar[Mapping[str, str]] = {}
    """Maps a setting to the label in the file name that marks a value other than the default."""

    name: str

    @property
    def file(self) -> str:
        """Path of the model in a bundle.

        If a bundle has the format with several settings, labels are added to the names
        (`exporters.labels`). Formats that run on devices (`RUNS_ON`) must override this property.
        The default does not depend on the settings.
        """
        return self.name

    @property
    def sources(self) -> tuple[dict[str, Any], ...]:
        """Sections (name and settings) of the formats whose files this format is made from."""
        return ()

    @property
    def rounding(self) -> EightBits | None:
        """Rounding rule of an 8-bit file, if training can use the same rule."""
        return None

    def takes(self, batch: int) -> bool:
        """Whether the file supports this batch size."""
        return True

    @classmethod
    def for_batch(cls, batch: int) -> dict[str, Any]:
        """Settings for a file with this batch size."""
        return {}


class BatchConfig(FormatConfig):
    """Settings of a format with a batch axis."""

    LABELS: ClassVar[Mapping[str, str]] = {"dynamic_batch": "batch1"}

    dynamic_batch: bool = Field(
        True, description="Batch sizes of the file. true: any; false: only 1."
    )

    @property
    def batch(self) -> int | None:
        """The only supported batch size; None: any."""
        return None if self.dynamic_batch else 1

    def takes(self, batch: int) -> bool:
        """Whether the file supports this batch size: any, or only 1."""
        return self.batch in (None, batch)


class OnnxConfig(BatchConfig):
    """Settings of an ONNX graph."""

    opset: Annotated[int, Field(ge=18, le=23, description="ONNX operator set of the target.")] = (
        OPSET
    )

    @property
    def least_runtime(self) -> str:
        """The oldest ONNX Runtime that runs the graph."""
        return LEAST_ONNXRUNTIME[self.opset]
