"""File names of one format with several settings, such as `model.int8.symmetric.onnx`.

The file with the fewest changed settings has the plain name. The names of the others contain their
changed settings.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from hwnas.exporters.base import Format, FormatConfig, Source
from hwnas.interfaces import ModelFile, OpenModel

__all__ = ["Labelled", "labels", "with_label"]


def labels(configs: Sequence[FormatConfig]) -> tuple[str, ...]:
    """The labels of different settings of one format; "" for the settings with the plain name."""
    changed = [_changed(config) for config in configs]
    shared = {key for key in changed[0] if all(c.get(key) == changed[0][key] for c in changed)}
    plain = min(range(len(configs)), key=lambda i: len(changed[i]))
    return tuple(
        "" if i == plain else _text(config, {k: v for k, v in c.items() if k not in shared})
        for i, (config, c) in enumerate(zip(configs, changed, strict=True))
    )


def _changed(config: BaseModel) -> dict[str, Any]:
    """Settings that differ from their defaults."""
    fields = type(config).model_fields
    return {
        key: value
        for key, field in fields.items()
        if (value := getattr(config, key)) != field.default
    }


def _text(config: FormatConfig, settings: Mapping[str, Any]) -> str:
    parts = []
    for key, value in settings.items():
        if value is True or key in config.LABELS:
            parts.append(config.LABELS.get(key, key))
        elif isinstance(value, str):
            parts.append(value)
        else:
            values = value if isinstance(value, tuple) else (value,)
            parts.append(key + "-".join(str(v).lower() for v in values))
    return ".".join(re.sub(r"[^A-Za-z0-9_-]", "_", part) for part in parts)


def with_label(path: str, label: str, model: str) -> str:
    """The name of a file of `model`, with the label inserted before the suffix of the model."""
    stem = model.rpartition(".")[0]
    if not label:
        return path
    if path.startswith(f"{stem}."):
        return f"{stem}.{label}{path.removeprefix(stem)}"
    first, dot, ending = path.rpartition(".")
    return f"{first}.{label}{dot}{ending}"


@dataclass(frozen=True)
class Labelled(Format):
    """A format whose file names contain a label."""

    format: Format
    label: str

    def contents(self, source: Source) -> dict[str, bytes]:
        """The contents of the format, by their labelled names."""
        found = self.format.contents(source)
        model = next(iter(found))
        return {with_label(name, self.label, model): content for name, content in found.items()}

    def describe(self, files: Sequence[Path]) -> ModelFile:
        """The manifest entry of the format, with the labelled name."""
        plain = [file.with_name(file.name.replace(f".{self.label}.", ".", 1)) for file in files]
        found = self.format.describe(plain)
        return replace(found, path=str(Path(found.path).with_name(files[0].name)))

    def open_model(self, path: Path, *, threads: int = 1) -> OpenModel:
        """Opens the file as the format does."""
        return self.format.open_model(path, threads=threads)
