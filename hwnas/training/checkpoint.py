"""Checkpoints: weights and optimiser as safetensors, with a JSON file of their hashes."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from hwnas.core.confined import read_regular
from hwnas.core.errors import UserError, parts_of
from hwnas.core.records import SCHEMA_VERSION, NewerVersion, require_known_version
from hwnas.core.store import (
    UNSEALED,
    read_json,
    sealed,
    unsealed,
    write_bytes,
    write_json,
)
from hwnas.core.tensor_file import in_order
from hwnas.nets.origin import origin_metadata

__all__ = ["Checkpoints", "read_meta", "weights_bytes"]

log = logging.getLogger(__name__)

MAX_BYTES = 1 << 36
_ELSEWHERE = {"data.name", "data.n_images.test", "data.digests.test"}
"""Keys of an identity on which weights do not depend: the data folder, and the test images."""

_META = ("step", "notes", "identity", "optimizer_scalars", "sha256")


@dataclass(frozen=True)
class Checkpoints:
    """The last checkpoints of one training in `folder`, and the best weights.

    `identity` is everything on which the weights depend (config, seed, space, data), as JSON. A
    checkpoint is `step-N.safetensors`, written first, and `step-N.json` with its sha256. Only both
    together are a valid checkpoint, so the previous one stays valid after a kill. `keep`
    checkpoints are kept.
    """

    folder: Path
    identity: dict[str, Any]
    keep: int = 2

    def save(
        self,
        step: int,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        notes: Any,
        *,
        average: torch.nn.Module | None = None,
    ) -> None:
        """Stores the state that training from `step` on needs.

        `notes` are JSON values of the caller. `average` is a moving average of the weights.
        """
        tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
        if average is not None:
            tensors |= {f"average.{name}": value for name, value in average.state_dict().items()}
        scalars = {}
        for index, state in optimizer.state_dict()["state"].items():
            for name, value in state.items():
                if isinstance(value, torch.Tensor):
                    tensors[f"optimizer.{index}.{name}"] = value
                else:
                    scalars[f"{index}.{name}"] = value
        data = _bytes_of(tensors)
        stem = self.folder / f"step-{step:08d}"
        write_bytes(stem.with_suffix(".safetensors"), data)
        meta = {
            "schema_version": SCHEMA_VERSION,
            "step": step,
            "notes": notes,
            "identity": self.identity,
            "optimizer_scalars": scalars,
            "sha256": hashlib.sha256(data).hexdigest(),
        }
        write_json(stem.with_suffix(".json"), sealed(meta))
        kept = {path.stem for path in self._metas()[: self.keep]}
        for path in sorted(self.folder.glob("step-*")):  # removes .json before its .safetensors
            if path.stem not in kept:
                path.unlink()

    def save_best(self, model: torch.nn.Module, facts: Mapping[str, str]) -> None:
        """Replaces `best.safetensors`: only weights, with `facts` as metadata of the file."""
        write_bytes(self.folder / "best.safetensors", weights_bytes(model, facts))

    def restore(
        self,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        average: torch.nn.Module | None = None,
    ) -> tuple[int, Any] | None:
        """Loads the newest intact checkpoint; returns its step and notes, or None if there is none.

        Damaged checkpoints are skipped with a warning.

        Raises:
            UserError: the checkpoint has another identity (each changed key is named), or was
                written by a newer hwnas.
        """
        for path in self._metas():
            try:
                meta = read_meta(path)
                step, notes, identity, scalars, sha256 = (meta[key] for key in _META)
                data = read_regular(path.with_suffix(".safetensors"), at_most=MAX_BYTES)
                if hashlib.sha256(data).hexdigest() != sha256:
                    raise UserError(
                        "the weights were changed after hwnas wrote them",
                        expected=f"the content that hwnas wrote; its sha256 is in {path.name}",
                        found=UNSEALED,
                        where=path.with_suffix(".safetensors"),
                    )
            except NewerVersion:
                raise
            except (UserError, OSError, KeyError, TypeError, ValueError) as error:
                log.warning("skipping the damaged checkpoint %s: %s", path.with_suffix(""), error)
                continue
            self._check_identity(identity, path)
            tensors = safetensors.torch.load(data)
            _load(model, optimizer, tensors, scalars)
            if average is not None:
                average.load_state_dict(_part(tensors, "average."))
            return step, notes
        return None

    def _metas(self) -> list[Path]:
        return sorted(self.folder.glob("step-*.json"), reverse=True)

    def _check_identity(self, found: dict[str, Any], where: Path) -> None:
        before, now = _flatten(found), _flatten(self.identity)
        absent = "(absent)"
        unknown = {key for key in now.keys() - before.keys() if key.startswith("data.digests.")}
        changes = [
            f"{key}: {before.get(key, absent)!r} -> {now.get(key, absent)!r}"
            for key in sorted((before.keys() | now.keys()) - _ELSEWHERE - unknown)
            if before.get(key, absent) != now.get(key, absent)
        ]
        if changes:
            raise UserError(
                "the training settings changed since the checkpoint",
                found="".join(f"\n    {change}" for change in changes),
                where=where,
                fix=f"restore them, or remove {self.folder} to train from the start",
            )


def read_meta(path: Path) -> dict[str, Any]:
    """The JSON file of a checkpoint, with the hash of its weights.

    Raises:
        UserError: the file is not valid, was modified, or was written by a newer hwnas.
    """
    meta = read_json(path)
    require_known_version(meta, where=path, what="checkpoint")
    try:
        if "check" in meta:  # earlier versions had no `check`
            meta = unsealed(meta)
        if set(meta) != {"schema_version", *_META}:
            raise ValueError(f"the keys {', '.join(meta)}")
    except (TypeError, ValueError, AttributeError) as error:
        raise UserError(
            "not the JSON file of a checkpoint",
            **{"expected": f"the keys {', '.join(_META)}", **parts_of(error)},
            where=path,
        ) from error
    return dict(meta)


def weights_bytes(model: torch.nn.Module, metadata: Mapping[str, str]) -> bytes:
    """The weights as a .safetensors file, from any device; includes their origin."""
    return _bytes_of(model.state_dict(), {**origin_metadata(model), **metadata})


def _bytes_of(
    tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None
) -> bytes:
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    data: bytes = safetensors.torch.save(plain, dict(metadata) if metadata else None)
    return in_order(data)


def _part(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, item in value.items():
        flat |= _flatten(item, f"{prefix}.{key}" if prefix else key)
    return flat


def _load(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    tensors: dict[str, torch.Tensor],
    scalars: dict[str, Any],
) -> None:
    model.load_state_dict(_part(tensors, "model."))
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Any]] = {}
    for key, tensor in tensors.items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".", 2)
            like = parameters[int(index)]
            if tensor.shape == like.shape:  # keep the memory format of the parameter
                tensor = torch.empty_like(like, dtype=tensor.dtype).copy_(tensor)
            state.setdefault(int(index), {})[name] = tensor
    for key, value in scalars.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    # Hyper-parameters come from the config, whose identity was checked; the schedule sets the rate.
    optimizer.load_state_dict(optimizer.state_dict() | {"state": state})
